// Package nats carries events over a NATS server, for clusters where many
// frontends follow many workers: a worker sends each batch once. It implements
// event.Bus over core NATS; nothing is stored in the server. A node opens it for
// --event-plane nats.
//
// A publisher's newest events go out on a subject as they come, and at least a
// batch without events each Heartbeat, so that the loss of the last one is seen.
// What a subscriber misses it asks the publisher for, and gets one batch from the
// ring or a snapshot for each question. The place is in the question: the
// publisher keeps nothing of its subscribers but the snapshot that they are
// reading.
//
// Subjects, where NS is the namespace, each of its bytes other than a…z, A…Z, 0…9,
// - and _ as % and two hex digits, and WORKER and EPOCH are in hex as they print:
//
//	dynamo.NS.event.TOPIC.WORKER.EPOCH   batches (event/wire.go); an empty message
//	                                     says that the publisher has left
//	dynamo.NS.ask.TOPIC.WORKER.EPOCH     requests; the reply is a batch
//	dynamo.NS.ask.TOPIC.WORKER.any       the same, of whichever life is there
//
// Laws, beside those of package event:
//
//   - The server is needed when a node starts; later its loss stops nobody.
//     Publishers go on to fill their rings, nothing is queued for the server, and
//     subscribers catch up when it is back.
//   - No message exceeds the server's max_payload.
//   - What waits in this process for a slow subscriber is bounded; beyond that it
//     misses events and asks.
//
// Who may connect is the server's business (users, TLS): the cluster key plays no
// part here.
package nats
