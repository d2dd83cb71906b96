// Package sched decides what an engine computes next: continuous batching over a
// paged KV pool. The embedded engine drives it with a model, a mocker with a
// table of times; both form the same batches from the same events.
//
// # Driving it
//
// A Scheduler is a state machine. Each method is one step: an event and the time
// go in, actions come out. One goroutine owns it; the shell's loop is
//
//	for {
//		// take in what happened: Submit, Lend, Cancel, Yield, KVArriving, KVLate, KVArrived, KVFailed, EndLease
//		batch, actions := s.Next(now)
//		// handle actions
//		if batch == nil {
//			// nothing to compute: wait for an event, or until s.NextWake()
//			continue
//		}
//		// compute batch.Entries, sample one id for each with Sample set
//		actions = s.Done(results, now)
//		// hand out the ids; handle actions; publish s.Events()
//	}
//
// One batch is in flight at a time: after Next returned one, Done (or Fail) comes
// before the next Next. The other events may come in between. What a method
// returns, and the slices inside, are valid until the next call of a method that
// takes an event (Stats, Events, Config and NextWake do not), except a batch,
// which stays valid until Done or Fail: it may be computed by another goroutine
// while events are taken in. KV events are valid under the same terms; whoever
// wants them takes them after every step.
//
// # Batches
//
// An Entry says: compute Tokens at positions Start, Start+1, …, reading and
// writing KV through the block table Blocks (position p lies in block
// Blocks[p/BlockSize]). With Sample the logits of its last position are wanted
// and one id is drawn from them: output number Output of the request, counted
// from 0 and with resumed ids included, the key of position-keyed random numbers.
// The shell reports it in Result.Token, with Finished set when it ends the answer
// (a stop id, say). Last says that the answer ends here in any case, for lack of
// length; the shell finishes with FinishLength then, unless the id ends it
// anyway. Results of sequences that were cancelled in the meantime are ignored.
//
// Logits is LogitsAll while prompt logits are wanted (Request.PromptLogits). A
// preempted sequence computes positions anew, so an entry may bring rows that
// were delivered before; go by position.
//
// # Actions
//
// Every accepted sequence gets exactly one Ended (I1). Before it, Admitted comes
// each time the sequence gets its blocks (the first one has the figure for
// Chunk.Cached), Preempted when it loses them again, Load when KV is to be copied
// into its blocks. After it, Leased if its KV is kept, and then one LeaseEnded.
//
// # Policy
//
//   - Order is by rank, then arrival: higher priority first, where one step of
//     priority is worth Config.Aging of waiting, so that with steady load nobody
//     waits for ever; Aging 0 makes priorities strict, and then lower ones may.
//   - A step takes up to Config.StepTokens: first one token for each decoding
//     sequence, then chunks of prompts under way, then new sequences. The queue's
//     head is not overtaken: what does not fit waits, and so do those behind it.
//     With Config.WholePrompts a prompt that exceeds what is left of a step waits for
//     one that has room for all of it.
//   - With one exception: a sequence whose next 64 tokens or more a running one is
//     about to compute is passed over until they can be shared. So of many equal
//     prompts that come together, one is computed.
//   - A sequence gets the blocks for all its tokens when it is admitted, so a
//     prompt under way never waits for memory. Admission leaves a watermark of
//     blocks for the growth of others, unless nothing else runs.
//   - A decoding sequence that needs a block when there is none preempts the last
//     in order, itself in the end; with Config.PreemptFirst, the first. The preempted goes back to the queue under its
//     old rank, hence to the front of its class; what it generated becomes part of
//     what it prefills, and its blocks stay findable until others need them. In
//     such a step nothing is admitted.
//   - A full-prompt hit computes the last block again: the last position's logits
//     are needed, and blocks that others may read are never written.
//   - Full blocks are offered to other sequences when the step that filled them
//     is done.
//
// # Waiting for KV
//
// A request may say that the KV of its first External tokens can be brought from
// elsewhere. When it is admitted, the part that is not in the pool becomes a Load
// action; the sequence holds its blocks and a place among the running until the
// shell reports KVArrived (it goes on) or KVFailed (it computes them itself). The
// shell reports exactly one of them for each Load, also when the sequence ended
// meanwhile: until then its blocks may be written to and are not used again. The last of
// these tokens may lie in a block that is not full; it is the sequence's own.
//
// With KVArriving the sequence is computed while the rest still comes; whoever computes the
// batch waits for what it needs of it, or says KVLate.
//
// The other way round, a request may have its KV kept when it ends (Request.Hold), and a
// running one can be given up with its KV (Yield): the shell has it read and says EndLease.
// What is there of a prompt can be kept without computing anything (Lend).
//
// With Config.External the shell is asked at that moment instead, for what lies in
// tiers below the pool: what is there changes while sequences wait. Of several
// sequences that need the block which one of them is having loaded, the others wait for
// it and find it in the pool. After failed loads the shell is asked again, but not often.
//
// # Simulations
//
// With Config.HashOnly there are no ids: a request has a length and the identities of
// its full blocks, and everything else is as with ids, to the block. Stretch, Ahead
// and Skip compute steps of which nothing but their number is of interest at once.
//
// Laws: I1, I4 (package kvbm), I5: the queue never exceeds Config.MaxWaiting by
// submission. The same calls give the same results: no clock, no randomness, no
// map order. A step allocates nothing in steady state.
package sched
