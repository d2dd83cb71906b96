package native

import (
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/transfer"
)

// TestLoanRenewed reads kept KV block by block, for longer than it is kept for somebody who
// does not come: it stays until nobody reads any more, and then no longer.
func TestLoanRenewed(t *testing.T) {
	const lease = 400 * time.Millisecond
	m := loadModel(t, tinyFolder(t), model.F32, 1)
	from := startExchanging(t, m, "local", func(c *Config) { prefills(c); c.Exchange.Lease = lease })
	to := startExchanging(t, m, "local", decodes)
	r := &dynamo.Request{ID: "r", Tokens: testPrompt(12 * model.BlockSize), MaxTokens: 8, IgnoreEOS: true}
	prefilled(t, from, r, func(_ []dynamo.TokenID, _ []dynamo.TokenLogprob, where []byte) {
		h, err := readHandover(where)
		if err != nil {
			t.Fatal(err)
		}
		agent := to.moves.Agent
		peer, err := agent.Import(h.Agent)
		if err != nil {
			t.Fatal(err)
		}
		size := int64(m.BlockBytes())
		buffer, err := agent.Register(transfer.Section{Name: "buffer", Bytes: make([]byte, size), PageBytes: size})
		if err != nil {
			t.Fatal(err)
		}
		for began, i := time.Now(), 0; time.Since(began) < 3*lease; i++ {
			p := h.place(i % blocksOf(h.Tokens))
			remote := transfer.Descriptor{Memory: h.Memory, Offset: int64(p.block) * size, Length: size, Token: p.token}
			list, err := agent.Prepare(peer, []transfer.Descriptor{buffer.At(0, size)}, []transfer.Descriptor{remote})
			if err != nil {
				t.Fatal(err)
			}
			x, err := agent.Post(list, transfer.Read, transfer.Options{})
			if err == nil {
				err = x.Wait(t.Context())
			}
			if err != nil {
				t.Fatalf("read for the %d. time after %v: %v", i+1, time.Since(began), err)
			}
			time.Sleep(lease / 20) // a slow link
		}
		ended := time.Now()
		checkIdle(t, from)
		if took := time.Since(ended); took > 10*lease {
			t.Errorf("it was kept for %v after it was read last, where %v are enough", took, 2*lease)
		}
	})
	if got := from.metric(t, "dynamo_native_handovers_expired_total"); got != 1 {
		t.Errorf("%v were given up, want 1", got)
	}
}
