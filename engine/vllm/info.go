package vllm

import "time"

// Info is what a server says of itself.
type Info struct {
	// Version is vLLM's, such as "0.32.0".
	Version string
	// Model is the name requests ask the server for, Root what it was loaded from,
	// and Models all names it served when it was found, adapters included.
	Model, Root string
	Models      []string
	// Adapters are the LoRA adapters, sorted, as the server named them last.
	Adapters []string
	// ContextLength is the longest sequence, BlockSize a KV block, in tokens, and
	// KVBlocks the size of the KV caches of all ranks, 0 if the server does not say.
	ContextLength, BlockSize, KVBlocks int
	// StepTokens is the most tokens that a rank computes in one step; 0 if the server
	// does not say.
	StepTokens int
	// PrefixCaching says whether prompts that begin alike share blocks, HashAlgorithm
	// how the server hashes them; empty if it does not say.
	PrefixCaching bool
	HashAlgorithm string
	// Dtype is the type the server computes in; "auto" if it does not say.
	Dtype string
	// TokensInOut says whether /inference/v1/generate is on; without it completions
	// are asked.
	TokensInOut bool
	// Connector is the KV connector that moves KV between servers, as the server said if
	// ConnectorAsked; empty: none, or it does not say.
	Connector      string
	ConnectorAsked bool
	// Lease is how long the connector keeps KV that nobody fetches, at the least.
	Lease time.Duration
	// Ranks is the number of data-parallel engines behind the server.
	Ranks int
	// Sources are where each rank publishes the changes of its KV cache; empty if
	// it does not, or does not say. EventsAsked says that the server said so itself.
	Sources     []Source
	EventsAsked bool
	// Notes say what this server cannot do, or does at a cost, and what to do about
	// it; empty is well.
	Notes []string
}

// Source is where one rank publishes the changes of its KV cache.
type Source struct {
	Rank                            int
	Endpoint, ReplayEndpoint, Topic string
}
