// Package trace is what is known of a stream of requests without their text: when
// each came, how long it was, and which blocks of its prompt it shares with
// others. It reads and writes the field's files, makes traces out of statistics or
// after a given one, describes them, changes them, and turns block hashes back into
// prompts that share what the originals shared. The load generator, the trace
// commands, the simulator and the frontend's recorder use it.
//
// Laws:
//   - Nothing here holds text. Where a file has text (ShareGPT), only its lengths
//     are kept.
//   - Reading streams: a trace may be larger than memory. What must be remembered
//     (sessions, blocks, unsorted requests) is bounded in limits.go.
//   - What is made depends on the configuration and the seed alone, not on the
//     order of calls.
//   - A fault in a file names its line and field.
//
// # The format
//
// A trace is a file of JSON lines, gzip or not. Mooncake's published traces are
// such files; further fields are optional, and who does not know them passes over
// them.
//
//	timestamp      ms since the start of the trace (also created_time)
//	input_length   tokens of the prompt, at least 1
//	output_length  tokens of the answer
//	hash_ids       one number for each block of the prompt, each standing for
//	               the block and everything before it; the last block may be
//	               partial, and may be left out
//	block_size     tokens of a block; 512 where it is missing
//	session_id     the conversation or agent the request belongs to
//	turn           its place in the session, from 0; counted where it is missing
//	delay          ms after the end of the session's previous answer (also
//	               delay_ms, tool_wait_ms); with it, timestamp may be missing
//	request_id     the request's own name, unique in the trace
//	wait_for       request_ids that must have been answered before
//	priority       higher is more urgent (also strict_priority)
//	model          the served model's name
//	choices        answers asked for, if more than one; output_length is their sum
//	finish         how it ended: stop, length, or a kind of error
//	ttft_ms        from arrival to first token
//	e2e_ms         from arrival to end
//
// Lines come in the order of their timestamps; those of a recorder come in the
// order in which requests ended, and have to be sorted (Sort).
package trace
