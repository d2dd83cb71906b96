// Package frontend is the HTTP server: OpenAI's chat and completion routes, the
// tokenizer routes, health and metrics. Text exists only here and in chat; what
// it asks of an engine and what it gets back are token ids.
//
// It owns the way of a request from bytes to bytes: authentication and limits,
// admission, the prompt (template, tokenizer), the answer's text (detokenizer,
// stop strings), the event stream and its back-pressure, cancellation, drain. It
// owns no model: node hands it loaded ones with AddModel.
//
// Laws:
//   - An accepted request ends exactly once (I1): with an answer, an error in
//     OpenAI's shape, or, when its client left, silently; in each case its engine
//     sequence has ended when the handler returns.
//   - The status is decided by the first thing the engine says: errors before it
//     have their HTTP status, later ones arrive as an event in the stream.
//   - A client that does not read holds up nobody else: what waits for it is
//     bounded by maxOutboxBytes, then its own generation pauses, and after
//     Config.WriteTimeout it is cut off.
//   - A stop string ends its choice in the step that completes it; text that may
//     become part of one is held back, and no other.
//   - A request's id is made here and no other request has it; what its client calls
//     it (x-request-id) is an alias for answers, logs and explanations.
//   - A tenant is what the API key says, or a header that the configuration trusts;
//     it is told nothing of others' requests.
//   - Labels of metrics are served model names and constants.
//   - The engine works within the trace the client named: its context carries the
//     span made here or, where none is recorded, the client's own traceparent.
//
// Goroutines: one writer per streamed answer, from its second batch of events to
// its end (owner: the handler, which waits for it); one per further prompt of a
// request with several (owner: the handler, which waits for them).
package frontend
