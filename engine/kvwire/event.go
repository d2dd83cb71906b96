package kvwire

import (
	"strconv"

	"github.com/dynamo-go/dynamo"
)

// EngineHash is what an engine calls a block: an integer hash as it is, a signed
// one as its bits, and of a hash in bytes the last eight, big-endian, so that both
// forms of vLLM agree.
type EngineHash uint64

// Kind says what an Event or a Change tells.
type Kind uint8

// The kinds.
const (
	Stored Kind = iota
	Removed
	Cleared
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case Stored:
		return "stored"
	case Removed:
		return "removed"
	case Cleared:
		return "cleared"
	}
	return "kind(" + strconv.Itoa(int(k)) + ")"
}

// Batch is one message of an engine: what one of its steps changed.
type Batch struct {
	// Timestamp is in seconds since 1970, by the engine's clock.
	Timestamp float64
	Events    []Event
	// Rank is the data-parallel rank; 0 where the engine does not say.
	Rank int
	// Skipped counts events of kinds that are not known.
	Skipped int
}

// Event is one change of an engine's cache, as the engine tells it.
type Event struct {
	Kind Kind
	// Hashes are the blocks, for Stored each the successor of the one before it.
	Hashes []EngineHash
	// Parent is the block before the first one, if HasParent.
	Parent    EngineHash
	HasParent bool
	// Tokens are the ids of all blocks. They may be missing, and there may be more
	// of them than the blocks hold (groups that skip blocks).
	Tokens []dynamo.TokenID
	// Foreign says that token ids came in a form that is not plain ids (pairs of
	// speculative decoding, numbers out of range); Tokens is then empty.
	Foreign   bool
	BlockSize int
	LoRA      string
	// LoRAID says that a numbered adapter is in use, which old versions do not name.
	LoRAID bool
	// Medium and Locality say where the blocks lie; see Tier.
	Medium, Locality string
	// CacheSalt is the salt where the engine tells it beside the event (SGLang).
	CacheSalt string
	// Extra holds the blocks that have extra keys, in order.
	Extra []BlockKeys
	// Group is the KV cache group, SpecKind what its layers do; empty from versions
	// that do not say.
	Group    int
	SpecKind string
}

// BlockKeys are what a block's content depends on beside its tokens.
type BlockKeys struct {
	// Block is the index in Event.Hashes.
	Block int
	// Names are the keys that are text: the adapter's name, and the cache salt of
	// the first block of a sequence.
	Names []string
	// Others counts keys of other sorts: media items, embeddings.
	Others int
}

// Tier returns the tier that an engine's words for a place mean, if they are known.
// No medium is the device: old versions know no other.
func Tier(medium, locality string) (dynamo.Tier, bool) {
	var t dynamo.Tier
	switch medium {
	case "", "GPU":
		return dynamo.TierDevice, true
	case "CPU", "CPU_PINNED":
		t = dynamo.TierHost
	case "DISK", "FS", "STORAGE":
		t = dynamo.TierDisk
	case "OBJ", "EXTERNAL":
		t = dynamo.TierRemote
	default:
		return 0, false
	}
	if locality == "REMOTE" {
		t = dynamo.TierRemote
	}
	return t, true
}

// countsForPrefix says whether a group's blocks are each needed, and enough, for
// the prefix that they end. Versions that name no kind have the first group only.
func countsForPrefix(group int, specKind string) bool {
	switch specKind {
	case "full_attention", "mla_attention":
		return true
	case "":
		return group == 0
	}
	return false
}
