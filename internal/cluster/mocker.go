package cluster

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/mocker"
	"github.com/dynamo-go/dynamo/node"
	"github.com/dynamo-go/dynamo/perfmodel"
)

// mock makes worker n one with a mocker.
func (s Shape) mock(cfg *node.Config, p *process, n int) {
	cfg.Engine, cfg.StepTokens = node.EngineMocker, 32
	m := &cfg.Mocker
	m.BlockSize, m.Blocks = mockerBlockSize, mockerBlocks
	itl := s.ITL.Seconds()
	m.Model = &perfmodel.ClosedForm{PrefillFixedSeconds: itl, PrefillSecondsPerToken: itl / 20, DecodeFixedSeconds: itl}
	m.PreemptFirst, m.KVBytesPerToken, m.TransferBandwidth = s.PreemptFirst, 1000, 1e6/itl // a step for 1000 tokens
	if s.Prefills > 0 {
		cfg.Worker.Role = engine.RoleDecode
		if n > s.Workers-s.Prefills {
			cfg.Worker.Role = engine.RolePrefill
		}
		m.Faults.Transfer = s.Lost
	}
	m.Built = func(e *mocker.Engine) { p.mocker.Store(e) }
	if n > 1 {
		m.Faults.Slow, m.Faults.Refuse = s.Slow, s.Refuse
	}
}

// oracle is a mocker of which nothing is asked but what answers are.
type oracle struct {
	engine *mocker.Engine
	stop   context.CancelFunc
	ran    sync.WaitGroup
}

func newOracle() *oracle {
	c := mocker.DefaultConfig()
	c.Name, c.ContextLength, c.VocabSize, c.EOS, c.Speedup = modelName, 2048, 258, []dynamo.TokenID{257}, 0
	for b := dynamo.TokenID(' '); b <= '~'; b++ {
		c.Words = append(c.Words, b) // an id is a byte
	}
	e, err := mocker.New(c)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	o := &oracle{engine: e}
	ctx, stop := context.WithCancel(context.Background())
	o.stop = stop
	o.ran.Go(func() { _ = e.Run(ctx) }) // its error is that ctx has ended
	return o
}

func (o *oracle) end() {
	o.stop()
	o.ran.Wait()
}

// ask returns the text of each choice.
func (o *oracle) ask(ctx context.Context, r *request) []string {
	prompt := make([]dynamo.TokenID, len(r.prompt))
	for i := range prompt {
		prompt[i] = dynamo.TokenID(r.prompt[i])
	}
	var all []string
	for choice := range r.choices {
		var text strings.Builder
		for chunk, err := range o.engine.Generate(ctx, &dynamo.Request{Tokens: prompt, MaxTokens: r.tokens, IgnoreEOS: true, Choice: choice}) {
			if err != nil {
				panic("BUG: " + err.Error())
			}
			for _, id := range chunk.Tokens {
				text.WriteByte(byte(id))
			}
		}
		all = append(all, text.String())
	}
	return all
}

// checkPools checks the KV caches of the mockers at quiesce: they are sound, and
// nothing is left in them but what may be found again (I4, I6). It returns how often
// sequences were preempted, and KV was brought for them.
func (c *Cluster) checkPools() (preemptions, transfers int) {
	c.mu.Lock()
	var alive []*process
	for _, p := range c.mu.processes {
		alive = append(alive, p)
	}
	c.mu.Unlock()
	for _, p := range alive {
		e := p.mocker.Load()
		select {
		case <-p.started:
		default:
			continue
		}
		if e == nil {
			continue
		}
		if err := e.Check(); err != nil {
			c.problem(fmt.Errorf("the mocker on %s at quiesce: %w", p.host, err))
		}
		s := e.Stats()
		if kv := s.Scheduler.KV; s.Busy() > 0 || kv.Partial+kv.Complete+kv.Held+kv.Loading+kv.Leases > 0 {
			c.problem(fmt.Errorf("I6: the mocker on %s holds %d requests and blocks %+v at quiesce", p.host, s.Busy(), kv))
		}
		preemptions += int(s.Scheduler.Preemptions)
		transfers += int(s.Scheduler.Loads - s.Scheduler.LoadsFailed)
	}
	return preemptions, transfers
}
