// Package remoteapi is an Engine over any server that speaks OpenAI's completions
// API: llama.cpp, Ollama, somebody's API. Such a server takes and gives text, so
// the card says text-only: chunks carry Text, answers are never split or migrated
// once they have begun, and stop strings are the frontend's matter. Workers use it
// (--engine openai).
//
// The currency of a request is token ids. They become the prompt's text by the
// model's own tokenizer (Config.Decode), so that the prompt that a template has
// rendered reaches the server as it is. Without a tokenizer the ids themselves are
// sent, which the API allows and a server with the same vocabulary understands.
//
// What restricts an answer (dynamo.Guided) goes out as response_format or as
// vLLM's structured_outputs; whether a server heeds it is not known beforehand, and
// nothing is checked behind it.
//
// Laws: what a client asks for and the server cannot do is refused or, for ids
// that end an answer, left to the server; nothing the server sends is trusted to be
// short, timely or well-formed; the engine owns no goroutine beyond those of
// net/http's connections, which Close ends.
package remoteapi
