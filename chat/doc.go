// Package chat turns a conversation into a prompt: it compiles the Jinja chat
// templates that models are published with and renders them.
//
// The frontend uses it, once per request; package node compiles a model's
// templates when it loads the model. It owns the template language and the
// values templates compute with; it knows nothing of tokens.
//
// Laws:
//  1. A render gives the bytes that transformers' apply_chat_template gives
//     (jinja2's ImmutableSandboxedEnvironment with trim_blocks, lstrip_blocks,
//     loop controls, the generation tag and transformers' own tojson), or fails
//     where that fails.
//  2. A template, like everything else from outside, can be hostile: a render
//     ends within its Limits, and a compile within limits of its own.
//  3. A compiled Template does not change. Any number of renders may use it at
//     once, and share the Values they are given, which are never changed either.
//  4. The package is pure: no clock (Input.Now), no files (include, import and
//     extends are refused), no randomness (random and lipsum are refused).
//
// Where it departs from Python, beside what it refuses: integers beyond 4300
// digits are an error, functions and generators print without an address, and
// slicing a literal that has no slices is an error where jinja2, folding
// constants, prints nothing.
package chat
