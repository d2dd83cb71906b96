// Package openai holds the wire types of OpenAI's HTTP API as this project
// serves it, with the extensions that vLLM and NVIDIA Dynamo made customary, and
// the codec of server-sent events. The frontend decodes requests and encodes
// answers with it; clients and tests read streams with Reader.
//
// It owns no connection, clock or model: what it knows of a request is what the
// bytes say.
//
// Laws of decoding:
//   - Unknown fields are kept (Params.Extra) and ignored. null is the same as
//     absent.
//   - A wrong type or range is an error that names the field (dynamo.Error with
//     Param), as is a known field that nothing executes yet: it is never
//     silently dropped. Only what says where KV blocks come from or go to is
//     dropped, and counted (Params.Transfers): it is not the client's to say.
//   - Invalid UTF-8, lone surrogates, NaN, duplicated names in any object and
//     bytes after the request are errors. (Two parsers on a request's way may
//     differ on which duplicate wins; so nobody gets to choose.)
//   - What is kept is bounded by limits.go whatever the input claims.
//
// Laws of encoding: append to the caller's buffer, never fail, never emit
// invalid JSON or UTF-8, keep the order of fields.
package openai
