// Package placement decides which worker a request goes to. Package router feeds
// it and books what it decides; tests and simulators call it as the router does.
//
// Decide is a function of a request's features, the candidates' and a policy. It
// owns no state: what the router has booked, what workers have reported and when,
// and which turn a worker had last all come in with the candidates.
//
// Laws:
//   - A worker that is unable never wins, and one of a higher rank does not while one
//     of a lower is left, be it full.
//   - A worker that is down, draining, held, excluded or full never wins, so none
//     that is full gets a request while another is free. Nor does one that lacks the
//     adapter a request asks for.
//   - Every policy is a cost; the lowest wins, and equal costs are told apart by a
//     key made of the request's seed and the worker. The order in which
//     candidates are listed has no influence.
//   - A Decision holds everything it was made from: Again finds the same winner.
package placement
