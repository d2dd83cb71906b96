package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/dynamo-go/dynamo/hub"
)

// plainEvery is how often a download says how far it is where no terminal shows
// a bar.
const plainEvery = 5 * time.Second

// console tells a person how downloads and loads go: bars on a terminal, lines
// otherwise. Its methods may be called by several goroutines.
type console struct {
	out      io.Writer
	terminal bool
	mu       struct {
		sync.Mutex
		bar   *progressbar.ProgressBar
		what  string // of the bar or of the last plain line
		total int64
		best  int64 // the furthest shown; reports may overtake each other
		told  time.Time
		began time.Time
	}
}

func newConsole(out io.Writer) *console {
	return &console{out: out, terminal: isTerminal(out)}
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// hub shows an event of a fetch.
func (c *console) hub(e hub.Event) {
	switch e.Kind {
	case hub.EventSource:
		size := ""
		if e.Total > 0 {
			size = " (" + mib(e.Total) + ")"
		}
		c.say("fetching %s%s: %s", e.Ref, size, e.Source)
	case hub.EventProgress:
		c.step("downloading", e.Done, e.Total)
	case hub.EventVerify:
		c.step("verifying", e.Done, e.Total)
	case hub.EventWaiting, hub.EventNote:
		c.say("%s", e.Text)
	case hub.EventDone:
		c.say("fetched %s from %s, verified", e.Ref, e.Source)
	}
}

// step shows that done of total bytes of some work are done.
func (c *console) step(what string, done, total int64) {
	if total <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.what != what || c.mu.total != total {
		c.endLocked()
		c.mu.what, c.mu.total, c.mu.best = what, total, 0
		c.mu.began = time.Now()
		c.mu.told = c.mu.began
	}
	c.mu.best = max(c.mu.best, min(done, total))
	if !c.terminal {
		c.plainLocked()
		return
	}
	if c.mu.bar == nil {
		c.mu.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(c.out), progressbar.OptionSetDescription(what), progressbar.OptionShowBytes(true),
			progressbar.OptionSetWidth(30), progressbar.OptionThrottle(65*time.Millisecond), progressbar.OptionClearOnFinish(),
			progressbar.OptionUseIECUnits(true))
		return // what was there before the bar would count as its speed
	}
	_ = c.mu.bar.Set64(c.mu.best) // a bar that cannot be drawn is no reason to stop
}

// plainLocked writes a line now and then.
func (c *console) plainLocked() {
	if time.Since(c.mu.told) < plainEvery {
		return
	}
	c.mu.told = time.Now()
	fmt.Fprintf(c.out, "%s: %s of %s (%d%%)\n", c.mu.what, mib(c.mu.best), mib(c.mu.total), 100*c.mu.best/c.mu.total)
}

// say writes a line, below no bar.
func (c *console) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked()
	fmt.Fprintln(c.out, strings.TrimRight(fmt.Sprintf(format, args...), "\n"))
}

// end takes a bar away.
func (c *console) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked()
}

func (c *console) endLocked() {
	if c.mu.bar != nil {
		_ = c.mu.bar.Clear() // as above
		c.mu.bar = nil
	}
	c.mu.what = ""
}
