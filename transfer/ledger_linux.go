package transfer

// loan is the payload of a frame, from its first part's being lent to the kernel to the
// last one's being given back.
type loan struct {
	parts int  // that the kernel has, and one while the frame is being sent
	lent  bool // some of it was asked to be lent
	back  func()
}

// lot is what one request lends.
type lot struct {
	loan  *loan
	bytes int // of it that the kernel took
}

// ledger is what a connection knows of its loans. It is a pure state machine that is told
// of requests and completions. Each request has one completion that says how many bytes
// were taken and whether a notification follows; the notification gives the bytes back,
// and says whether the kernel has copied them.
type ledger struct {
	last   uint64     // request
	answer completion // the last that said how many bytes were taken
	parts  map[uint64]lot
	copied int // notifications in a row that say so
}

// request lends a part, or what of it the kernel takes.
func (g *ledger) request(l *loan) (user uint64) {
	g.last++
	l.parts++
	l.lent = true
	g.parts[g.last] = lot{loan: l}
	return g.last
}

// withdraw takes a request back that the kernel did not get.
func (g *ledger) withdraw(user uint64) {
	g.parts[user].loan.parts--
	delete(g.parts, user)
}

// complete takes a completion. It returns the loan that is given back by it, and what of
// it the kernel had and copied.
func (g *ledger) complete(c completion) (l *loan, bytes int, copied bool) {
	p, ok := g.parts[c.user]
	switch {
	case !ok:
		panic("BUG: the kernel gives back what was not lent to it")
	case c.flags&uringNotif == 0:
		g.answer = c
		if c.flags&uringMore != 0 {
			p.bytes = int(max(c.res, 0))
			g.parts[c.user] = p
			return nil, 0, false
		}
	case p.bytes > 0: // a request that took nothing says that it has copied
		bytes, copied = p.bytes, uint32(c.res)&uringCopied != 0
		g.copied++
		if !copied {
			g.copied = 0
		}
	}
	delete(g.parts, c.user)
	if p.loan.parts--; p.loan.parts > 0 {
		return nil, bytes, copied
	}
	return p.loan, bytes, copied
}
