package openai

import (
	"strconv"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Extension is the nvext object of an answer: what the request's extra_fields asked
// for.
type Extension struct {
	// Worker says who served the request; nil is not asked for, or not known.
	Worker *ServedBy
	// Timing says how long it took; nil is not asked for.
	Timing *Timing
}

// ServedBy names the workers that served a request, by their ids in decimal, and
// their data-parallel ranks. Where one did both parts it is named twice.
type ServedBy struct {
	Prefill, Decode         dynamo.WorkerID
	PrefillRank, DecodeRank int
}

// Timing says how long the parts of a request took.
type Timing struct {
	// Received is when the request arrived.
	Received time.Time
	// PrefillWait is from then until a worker had it, Prefill from there to the first
	// token; both are left out where nobody has said when that was.
	PrefillWait, Prefill Optional[time.Duration]
	// FirstToken and Total count from the arrival; the first is left out where there
	// was no token.
	FirstToken Optional[time.Duration]
	Total      time.Duration
	// HitRate is the part of the prompt that was found in the KV cache, in 0…1.
	HitRate float64
	// QueueDepth is how many other requests waited for a worker when this one got its
	// own.
	QueueDepth Optional[int]
}

// appendExtension appends the nvext member, its comma in front.
func appendExtension(dst []byte, x *Extension) []byte {
	if x == nil || x.Worker == nil && x.Timing == nil {
		return dst
	}
	dst = append(dst, `,"nvext":{`...)
	if w := x.Worker; w != nil {
		dst = append(dst, `"worker_id":{"prefill_worker_id":`...)
		dst = strconv.AppendUint(dst, uint64(w.Prefill), 10)
		dst = append(dst, `,"prefill_dp_rank":`...)
		dst = strconv.AppendInt(dst, int64(w.PrefillRank), 10)
		dst = append(dst, `,"decode_worker_id":`...)
		dst = strconv.AppendUint(dst, uint64(w.Decode), 10)
		dst = append(dst, `,"decode_dp_rank":`...)
		dst = append(strconv.AppendInt(dst, int64(w.DecodeRank), 10), '}')
	}
	if x.Timing != nil {
		if x.Worker != nil {
			dst = append(dst, ',')
		}
		dst = appendTiming(dst, x.Timing)
	}
	return append(dst, '}')
}

func appendTiming(dst []byte, t *Timing) []byte {
	dst = append(dst, `"timing":{"request_received_ms":`...)
	dst = strconv.AppendInt(dst, t.Received.UnixMilli(), 10)
	dst = appendMS(dst, `,"prefill_wait_time_ms":`, t.PrefillWait)
	dst = appendMS(dst, `,"prefill_time_ms":`, t.Prefill)
	dst = appendMS(dst, `,"ttft_ms":`, t.FirstToken)
	dst = appendMS(dst, `,"total_time_ms":`, Some(t.Total))
	dst = append(dst, `,"kv_hit_rate":`...)
	dst = strconv.AppendFloat(dst, t.HitRate, 'f', -1, 64)
	if t.QueueDepth.Set {
		dst = append(dst, `,"router_queue_depth":`...)
		dst = strconv.AppendInt(dst, int64(t.QueueDepth.Value), 10)
	}
	return append(dst, '}')
}

// appendMS appends a time in milliseconds, to the nanosecond.
func appendMS(dst []byte, name string, d Optional[time.Duration]) []byte {
	if !d.Set {
		return dst
	}
	dst = append(dst, name...)
	return strconv.AppendFloat(dst, float64(d.Value)/float64(time.Millisecond), 'f', -1, 64)
}
