package placement

import "math"

// cost fills in what the policy makes of each candidate.
func (d *Decision) cost() {
	switch d.Params.Policy {
	case RoundRobin:
		d.costTurn()
	case LeastLoaded:
		d.costFill()
	case PowerOfTwo:
		d.costFill()
		d.sample()
	case KV:
		d.costTotal()
	case Reference:
		d.costReference()
	case Sticky:
		d.costFirst()
		d.keepClose()
	case LMetric:
		d.costProduct()
	case Session:
		d.costSession()
	case Random, Direct:
	}
}

// finite is a cost that can be compared.
func finite(cost float64) float32 {
	if !(cost < maxCost) {
		return maxCost
	}
	return float32(max(cost, -maxCost))
}

// costTurn is how many decisions ago a worker had its turn, negative.
func (d *Decision) costTurn() {
	last := uint64(0)
	for i := range d.Candidates {
		last = max(last, d.Candidates[i].Turn)
	}
	for i := range d.Candidates {
		d.Scores[i].Cost = 0 - float32(last-d.Candidates[i].Turn)
	}
}

// costFill is the load, with this request, relative to the capacity.
func (d *Decision) costFill() {
	for i := range d.Candidates {
		d.Scores[i].Cost = float32(d.Scores[i].Load+1) / float32(d.Candidates[i].capacity())
	}
}

func (c *Candidate) capacity() int {
	switch {
	case c.MaxRunning > 0:
		return c.MaxRunning
	case c.Report.MaxRunning > 0:
		return c.Report.MaxRunning
	}
	return assumedCapacity
}

// sample sets all aside but the two fit candidates, undoubted ones first, with the
// lowest ties.
func (d *Decision) sample() {
	least := [2]int{None, None}
	earlier := func(i, j int) bool {
		a, b := &d.Scores[i], &d.Scores[j]
		if a.Doubted != b.Doubted {
			return b.Doubted
		}
		return d.tie(i) < d.tie(j)
	}
	for i := range d.Scores {
		d.Scores[i].Aside = true
		switch {
		case d.Scores[i].Verdict != Fit:
		case least[0] == None || earlier(i, least[0]):
			least[0], least[1] = i, least[0]
		case least[1] == None || earlier(i, least[1]):
			least[1] = i
		}
	}
	for _, i := range least {
		if i != None {
			d.Scores[i].Aside = false
		}
	}
}

// costProduct multiplies the tokens to be computed before the answer begins with the
// size of the batch that waits for them.
func (d *Decision) costProduct() {
	size := d.Request.size()
	for i := range d.Candidates {
		// One token at least is computed, from which the answer goes on.
		own := max(size-d.held(i)[0], min(1, size))
		pending := d.Candidates[i].backlog(d.Request.Now).tokens
		d.Scores[i].Cost = finite((pending + float64(own)) * float64(d.Scores[i].Load+1))
	}
}

// costReference is the formula of NVIDIA Dynamo's KV router, in blocks:
//
//	prefill = max((pending + prompt)/block − credit, 0)
//	credit  = overlap·decay·device + host·(host alone) + disk·(disk alone) + shared·(remote alone)
//	decay   = 1/(1 + k·((pending − least pending)/block)/prompt blocks)
//	cost    = scale·prefill + blocks in use, the request's included + weight·requests
//
// An answer to a prompt computed elsewhere has no prefill and no credit.
func (d *Decision) costReference() {
	p, r := &d.Params.Reference, &d.Request
	block := float64(max(r.BlockSize, 1))
	least := math.Inf(1)
	if p.CreditDecay > 0 {
		for i := range d.Candidates {
			if d.Scores[i].Verdict == Fit {
				least = min(least, d.Candidates[i].backlog(r.Now).tokens)
			}
		}
	}
	for i := range d.Candidates {
		d.Scores[i].Cost = d.reference(i, block, least)
	}
	d.low, d.high = maxCost, -maxCost
	for i := range d.Scores {
		if s := &d.Scores[i]; s.Verdict == Fit {
			d.low, d.high = min(d.low, s.Cost), max(d.high, s.Cost)
		}
	}
}

func (d *Decision) reference(i int, block, least float64) float32 {
	held := d.held(i)
	p, c := &d.Params.Reference, &d.Candidates[i]
	prompt := float64(d.Request.size()) / block
	cost := p.RequestWeight * float64(d.Scores[i].Load)
	if !p.IgnoreBlocks {
		cost += float64(c.kvTokens(d.Request.Now))/block + prompt
	}
	if p.IgnorePrefill || d.Request.Role == Decode {
		return finite(cost)
	}
	pending := c.backlog(d.Request.Now).tokens
	decay := 1.0
	if p.CreditDecay > 0 && prompt > 0 && pending > least {
		decay = 1 / (1 + p.CreditDecay*((pending-least)/block)/prompt)
	}
	credit := p.OverlapCredit*decay*float64(held[0]) + p.HostCredit*float64(held[1]) + p.DiskCredit*float64(held[2]) + p.SharedCredit*float64(held[3])
	return finite(cost + p.PrefillScale*max(pending/block+prompt-credit/block, 0))
}

// keepClose sets those aside that hold too little of the prompt, if any holds enough
// and is not much slower than the best; now and then it does not.
func (d *Decision) keepClose() {
	p, r := &d.Params.Sticky, &d.Request
	if float64(mix(r.Seed^0x5bd1e995)>>11)/(1<<53) < p.ExplorationProbability || r.size() == 0 {
		return
	}
	blocks := r.size() - r.size()%max(r.BlockSize, 1)
	enough := func(i int) bool {
		s, held := &d.Scores[i], d.held(i)[0]
		return s.Verdict == Fit && !s.Doubted && held > 0 && float64(held) >= p.AffinityThreshold*float64(blocks)
	}
	all, near := float32(maxCost), float32(maxCost)
	for i := range d.Scores {
		if s := &d.Scores[i]; s.Verdict == Fit && !s.Doubted {
			all = min(all, s.Cost)
			if enough(i) {
				near = min(near, s.Cost)
			}
		}
	}
	if near == maxCost || float64(near)-float64(all) > p.MaxTTFTPenaltyMS {
		return
	}
	for i := range d.Scores {
		d.Scores[i].Aside = !enough(i)
	}
}

// costSession sets those aside that are half full and hold much more than their share,
// as consistent hashing with bounded loads does; among the others the session's hash
// decides. A request without a session goes to the least loaded.
func (d *Decision) costSession() {
	if d.Request.Session == 0 {
		d.costFill()
		return
	}
	load, capacity := 1.0, 0.0
	for i := range d.Scores {
		if d.Scores[i].Verdict == Fit {
			load += float64(d.Scores[i].Load)
			capacity += float64(d.Candidates[i].capacity())
		}
	}
	for i := range d.Scores {
		own := float64(d.Candidates[i].capacity())
		share := sessionSlack * load * own / max(capacity, 1)
		d.Scores[i].Aside = float64(d.Scores[i].Load+1) > max(share, own/2)
	}
}
