package mocker

import (
	"time"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/obs"
)

// handover is what a mocker says of the KV it keeps for a request
// (dynamo.Chunk.Handover): a JSON object. Who wants the KV reads how much of it there is
// and for how long; the rest is for people.
type handover struct {
	Engine  string           `json:"engine"` // engineName
	Worker  string           `json:"worker"`
	Epoch   uint64           `json:"epoch,string"`
	Rank    int              `json:"rank"`
	Request dynamo.RequestID `json:"request"`
	// Tokens is the number of leading ids of prompt and answer whose KV there is.
	Tokens        int     `json:"tokens"`
	BytesPerToken int     `json:"bytes_per_token"`
	LeaseSeconds  float64 `json:"lease_seconds"`
}

// handOver tells of the KV that is kept of t, for as long as it is.
func (c *computer) handOver(t *loop.Task, kept *sched.Action) []byte {
	b, err := json.Marshal(&handover{
		Engine: engineName, Worker: c.config.Worker.String(), Epoch: c.config.Epoch, Rank: c.rank, Request: t.Request.ID,
		Tokens: kept.Tokens, BytesPerToken: c.config.KVBytesPerToken, LeaseSeconds: c.config.Lease.Seconds(),
	})
	if err != nil {
		panic("BUG: mocker: a handover cannot be written: " + err.Error())
	}
	return b
}

// source is KV that a request may be given, and what became of it.
type source struct {
	tokens, bytesPerToken int
	until                 time.Time // it is kept so long
	// taken says that it was brought once, after which it is not kept any more.
	taken bool
	// present says that it was brought, and is here.
	present bool
}

// source reads the handover of r, which has just come. It is the zero source if
// there is none that this engine can make use of.
func (c *computer) source(r *dynamo.Request) (s source) {
	if len(r.Handover) == 0 {
		return s
	}
	var h handover
	if err := json.Unmarshal(r.Handover, &h); err != nil || h.Engine != engineName || h.Tokens < 0 || h.BytesPerToken < 0 {
		c.config.Logger.Debug("a handover that is none of a mocker's; the prompt is computed here", obs.KeyRequest, r.ID, obs.KeyError, err)
		return s
	}
	lease := time.Duration(min(max(h.LeaseSeconds, 0), maxLease.Seconds()) * float64(time.Second))
	return source{
		tokens: min(h.Tokens, len(r.Tokens)+len(r.Resume)-1), bytesPerToken: min(h.BytesPerToken, maxKVBytesPerToken),
		until: time.Now().Add(lease),
	}
}
