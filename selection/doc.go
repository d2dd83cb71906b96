// Package selection serves routing alone, over HTTP and over plane/rpc: other gateways
// ask it which worker a request should go to, send it there themselves, and say how it
// goes on. Package node wires it to the same routers that a frontend has; `dynamo router`
// is the role, and `dynamo router call` its client.
//
// It owns the JSON of its messages, the reservations that are open and the workers that
// clients have added. What is chosen is the router's business, and so is what a
// reservation counts.
//
//	select              POST   /select                                where a request should go
//	select_and_reserve  POST   /select_and_reserve                    the same, and booked there
//	reserve             POST   /reservations                          booked at the worker that worker_id names
//	prefill_complete    POST   /reservations/{id}/prefill_complete    its first token has come
//	output_block        POST   /reservations/{id}/output_block        its answer has grown by a block, or tokens
//	release             DELETE /reservations/{id}                     it has ended: ?end=…&output_tokens=…
//	workers, loads      GET    /workers, /loads                       the workers, and what is booked where
//	add_worker          POST   /workers                               one that discovery does not find
//	remove_worker       DELETE /workers/{id}                          it has gone
//	potential_loads     POST   /potential_loads                       what a request would mean to each
//	overlap_scores      POST   /overlap_scores                        and what each holds of it
//	state, explain      GET    /v1/router, /v1/requests/{id}/explain  as a frontend's
//	                    GET    /health, /ready, /live, /metrics       for HTTP alone
//
// Laws:
//   - HTTP and rpc are two ways to call one table of methods: messages, limits, answers
//     and errors are the same. What stands in an address is a field of the message.
//   - Messages are decoded field by field, never by reflection; a field that is unknown,
//     there twice or not what it must be is an error that names it.
//   - A reservation is booked from the answer to its request until its DELETE or until
//     its lease is over, whichever is first, and then no more: after a quiet lease
//     nothing is booked, whatever clients have forgotten.
//   - Each of its calls counts once. One that comes too late or again is answered, says
//     so, and changes nothing; so clients may repeat what they are not sure of.
//   - A reservation's id is the client's request_id where it gives one: who did not get
//     the answer can end it all the same.
//   - A worker that was added is in the router of its model, discovery's where there is
//     one, until it is removed; one that discovery has found cannot be added.
//   - Who may ask is believed: tenants and sessions are as it says. So it is for
//     gateways: over HTTP behind a key (Config.Key) or a closed network, over rpc for
//     those who hold the cluster key.
//
// Locks: Server.adding is held while the set of workers or models changes, and routers
// are told; below it Server.mu guards the models and table.mu the reservations, and
// nothing is called while either of these is held.
package selection
