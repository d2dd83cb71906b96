// Package placement decides which worker a request goes to, in which order requests that
// wait are tried, and says why. Package router feeds it and books what it decides;
// simulators and tests call it as the router does.
//
// A decision is a function of a request's features, the candidates' and a policy: see
// Decide. What the router has booked, what workers have reported and when, how fast
// each is, and which turn it had last, come in with the candidates, which live as
// long as the workers and are changed in place. A Fleet keeps them, and works out
// beforehand what a decision asks of each; it decides the same, sooner. A Queue holds
// those that no worker can take, an Estimator follows how fast a worker is and how far
// predictions were off, a Shadow tries another policy on the same inputs.
//
// Laws:
//   - A worker that is unable never wins, and one of a higher rank does not while one
//     of a lower is left, be it full.
//   - A worker that is down, draining, held, excluded or full never wins, so none
//     that is full gets a request while another is free. Nor does one that lacks the
//     adapter or a label that a request asks for, is not the one it names, or does
//     another part of the work.
//   - Every policy is a cost; the lowest wins, and equal costs are told apart by a
//     key made of the request's seed and the worker. Draws are made with such keys
//     too, so each candidate's part in a draw depends on itself alone. The order in
//     which candidates are listed has no influence.
//   - A Decision holds everything it was made from: Again finds the same winner. So
//     does the Again of its Record, which holds the best candidates alone: whoever is
//     the best of all is the best of any of them.
//   - The policy kv has no knobs. Its cost is predicted milliseconds, the request's own
//     and those that it costs others, and more of them where a first token is late beside
//     what is to be computed of its prompt where most of it is held; what is not known is
//     taken to be alike everywhere.
//   - What comes from outside is clamped to what can be, or refused, where it comes in.
//     A cost is always a finite number.
//   - Nobody waits in a Queue behind one that finds no room while there is room for him,
//     and no tenant gets more of the workers' time than another that also waits.
package placement
