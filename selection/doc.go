// Package selection serves routing alone over HTTP: other gateways ask it which worker
// a request should go to, send it there themselves, and say how it goes on. Package
// node wires it to the same routers that a frontend has; `dynamo router` is the role.
//
// It owns the JSON of its routes and the reservations that are open. What is chosen is
// the router's business, and so is what a reservation counts.
//
//	POST   /select                                where a request should go
//	POST   /select_and_reserve                    the same, and booked there
//	POST   /reservations                          booked at the worker that worker_id names
//	POST   /reservations/{id}/prefill_complete    its first token has come
//	POST   /reservations/{id}/output_block        its answer has grown by a block, or tokens
//	DELETE /reservations/{id}                     it has ended: ?end=…&output_tokens=…
//	GET    /workers, /loads                       the workers, and what is booked where
//	POST   /potential_loads, /overlap_scores      what a request would mean to each
//	GET    /v1/router, /v1/requests/{id}/explain  as a frontend's
//	GET    /health, /ready, /live, /metrics
//
// Laws:
//   - A reservation is booked from the answer to its request until its DELETE or until
//     its lease is over, whichever is first, and then no more: after a quiet lease
//     nothing is booked, whatever clients have forgotten.
//   - Each of its calls counts once. One that comes too late or again is answered, says
//     so, and changes nothing; so clients may repeat what they are not sure of.
//   - A reservation's id is the client's request_id where it gives one: who did not get
//     the answer can end it all the same.
//   - Who may ask is believed: tenants and sessions are as it says. So it is for
//     gateways, behind a key (Config.Key) or a closed network.
//
// Locks: Server.mu guards the models, table.mu the reservations; nothing is called
// while either is held.
package selection
