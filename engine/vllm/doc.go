// Package vllm is an Engine over an unmodified vLLM server: token ids in, token
// ids out, and the changes of its KV cache as events. It attaches to a server
// that runs already or supervises a `vllm serve` process of its own. Nodes host
// it as they host the embedded engine; it owns the process, its HTTP connections
// and its event subscription.
//
// Laws:
//
//   - Ids cross the wire, never text: text is made by the frontend's tokenizer.
//     What the server says of a model's numbers is believed, what it says of an
//     answer is checked: an answer with too many ids, with ids outside the
//     vocabulary or with logprobs of other ids is KindCorrupt.
//   - Usage.Cached is what the server found; it tells so at the end of an answer, so
//     that Chunk.Cached is 0 unless the answer came in one chunk.
//   - A request ends at the server by the end of its connection, whatever ends it
//     here. Nothing is aborted by name.
//   - What restricts an answer (dynamo.Guided) is passed on in the form that the
//     server's version knows; whether a schema, regular expression or grammar is a
//     good one is the server's to say. A server forgets how far such an answer has
//     come where the ids so far are part of its prompt, so it does not go on.
//   - Transfer parameters (kv_transfer_params) come from this package or from the server
//     that computed the prompt, by way of a handover; a client's are none. Half a word
//     ends a vLLM server, and a word that is old or used fetches the KV of something
//     else: what is not whole, of this prompt and of the last seconds reaches no server,
//     and none is told twice.
//   - With Config.Role a server computes prompts for others, or goes on with what others
//     computed. It draws the first id again: the one of the prompt's server is dropped,
//     and Request.Prefill is answered by a chunk with Handover, Finish and no id. Where KV
//     does not come, the server computes the prompt.
//   - A server that is gone is KindUnavailable with engine.CodeLost, so that its
//     requests go on elsewhere. Greedy answers go on exactly, unseeded sampling
//     goes on in distribution, seeded sampling and penalties on generated ids do
//     not go on: vLLM counts both from the end of the prompt it is given, and the
//     ids so far are part of that prompt (Card.ResumeSeeded is false).
//   - A supervised server does not outlive this process, however that ends: a shell
//     in a session of its own waits for the end of a pipe and ends the server's
//     process group. A server that ends is started again after a pause that grows
//     with each end; meanwhile Load says Down and requests fail as lost at once.
//   - Load comes from what the streams tell and is completed by the server's
//     metrics. A slow or dead metrics page holds nothing up.
//   - Each version of vLLM that differs has a row in the table of versions.go;
//     one that is too old is refused by name.
//
// Goroutines: Ready and Close of an attached engine start none that outlive them.
// With a Command, Ready starts the process with one goroutine that reads its output
// and one that waits for its end; they end with the process, which Run or Close ends.
// Run adds the poller of the metrics and one subscriber for each event source, and
// waits for all of them.
package vllm
