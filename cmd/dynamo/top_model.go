package main

import (
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/dynamo-go/dynamo/router"
)

// topConfig is what a top is made of.
type topConfig struct {
	base     string
	interval time.Duration
	now      func() time.Time
	paint    paint
	// poll reads the routers' states, explain a request's record. Each is called by
	// one goroutine of its own and ends within answerWait.
	poll    func() tea.Msg
	explain func(id string) tea.Msg
}

// top is the state of the view. Update alone changes it.
type top struct {
	topConfig
	width, height int

	series []*series // by key
	key    string    // of the one that is shown; empty if there is none
	rows   []workerRow
	sort   sorting

	answered time.Time // when the last answer came; zero: none yet
	err      error     // why the last question has none
	paused   bool
	asking   bool // a question is open
	round    int  // of questions; a tick of an earlier one is void

	pane pane
	// worker and decision are what is selected, by name: rows move. Empty is the
	// first row, whichever it is.
	worker, decision string
	overlay          *overlay // nil: the tables are shown
}

// pane is the table that keys move in.
type pane int

const (
	workersPane pane = iota
	decisionsPane
)

// overlay is a text that is shown in the place of the tables.
type overlay struct {
	title     string
	id        string                   // of the request that it explains
	text      func(cells int) []string // its lines for a width
	top, left int
}

// newTop returns a view that has seen nothing.
func newTop(c topConfig) *top { return &top{topConfig: c, width: 80, height: 24} }

var _ tea.Model = (*top)(nil)

// tick asks for the next reading of a round.
type tick int

// Init begins with a reading.
func (m *top) Init() tea.Cmd { return m.ask() }

// ask reads the routers' states, unless that is being done.
func (m *top) ask() tea.Cmd {
	if m.asking {
		return nil
	}
	m.asking = true
	return m.poll
}

// Update takes a key, an answer, the passing of time or a new size.
func (m *top) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m, m.press(msg.String())
	case reading:
		m.asking = false
		if !m.paused {
			m.take(msg)
		}
		round := m.round
		return m, tea.Tick(m.interval, func(time.Time) tea.Msg { return tick(round) })
	case tick:
		if int(msg) == m.round && !m.paused {
			return m, m.ask()
		}
	case explained:
		m.show(msg)
	}
	return m, nil
}

// take takes a reading in.
func (m *top) take(r reading) {
	m.err = r.err
	if r.err != nil {
		return
	}
	m.answered = r.at
	known := map[string]*series{}
	for _, s := range m.series {
		known[s.key] = s
	}
	m.series = m.series[:0:0]
	for i, key := range keyed(r.routers) {
		st := &r.routers[i]
		if st.At.IsZero() {
			st.At = r.at
		}
		s := known[key]
		if s == nil {
			s = &series{key: key}
		}
		s.add(st)
		m.series = append(m.series, s)
	}
	slices.SortStableFunc(m.series, func(a, b *series) int { return strings.Compare(a.key, b.key) })
	if m.current() == nil {
		m.key = ""
		if len(m.series) > 0 {
			m.key = m.series[0].key
		}
	}
	m.arrange()
}

// current is the router that is shown; nil if there is none.
func (m *top) current() *series {
	for _, s := range m.series {
		if s.key == m.key {
			return s
		}
	}
	return nil
}

// choose shows another router.
func (m *top) choose(key string) {
	m.key, m.worker, m.decision = key, "", ""
	m.arrange()
}

// arrange makes the rows of the workers' table.
func (m *top) arrange() {
	m.rows = nil
	if s := m.current(); s != nil {
		m.rows = s.rows()
		m.sort.sort(m.rows)
	}
}

func (m *top) recent() []router.RecentState {
	if s := m.current(); s != nil {
		return s.last().Recent
	}
	return nil
}

// press does what a key stands for.
func (m *top) press(key string) tea.Cmd {
	if key == "ctrl+c" {
		return tea.Quit
	}
	if m.overlay != nil && (key == "q" || key == "esc" || key == "enter" || key == "backspace") {
		m.overlay = nil
		return nil
	}
	if step, moves := m.step(key); moves {
		m.move(step)
		return nil
	}
	switch key {
	case "q":
		return tea.Quit
	case "p", "space":
		return m.pause()
	}
	if o := m.overlay; o != nil {
		switch key {
		case "left", "h":
			o.left = max(0, o.left-8)
		case "right", "l":
			o.left = min(o.left+8, maxCellRunes)
		}
		return nil
	}
	switch key {
	case "tab", "shift+tab", "left", "right", "h", "l":
		m.pane = 1 - m.pane
	case "s":
		m.sort = (m.sort + 1) % sortings
		m.arrange()
	case "S":
		m.sort = (m.sort + sortings - 1) % sortings
		m.arrange()
	case "enter":
		return m.open()
	default:
		if len(key) == 1 && key[0] >= '1' && int(key[0]-'1') < min(9, len(m.series)) {
			m.choose(m.series[key[0]-'1'].key)
		}
	}
	return nil
}

// step is how far a key moves.
func (m *top) step(key string) (rows int, moves bool) {
	page := max(1, m.height/2)
	switch key {
	case "up", "k":
		return -1, true
	case "down", "j":
		return 1, true
	case "pgup", "ctrl+b":
		return -page, true
	case "pgdown", "ctrl+f":
		return page, true
	case "home", "g":
		return -1 << 30, true
	case "end", "G":
		return 1 << 30, true
	}
	return 0, false
}

// move moves the selection, or the text of the overlay.
func (m *top) move(step int) {
	if o := m.overlay; o != nil {
		o.top = max(0, min(o.top+step, len(o.text(m.width))-1))
		return
	}
	if m.pane == workersPane {
		if len(m.rows) > 0 {
			m.worker = m.rows[clamp(m.workerRow()+step, len(m.rows))].ID
		}
		return
	}
	recent := m.recent()
	if len(recent) == 0 {
		return
	}
	// The newest is selected as such, not by its name.
	i := clamp(m.decisionRow()+step, len(recent))
	m.decision = ""
	if i > 0 {
		m.decision = decisionName(&recent[i])
	}
}

// pause stops the questions, or goes on with them.
func (m *top) pause() tea.Cmd {
	m.paused = !m.paused
	m.round++
	if m.paused {
		return nil
	}
	return m.ask()
}

// open shows what is selected in full.
func (m *top) open() tea.Cmd {
	if m.pane == workersPane {
		if len(m.rows) > 0 {
			id := m.rows[m.workerRow()].ID
			m.overlay = &overlay{title: "worker " + printable(id), text: func(cells int) []string { return m.inFull(id, cells) }}
		}
		return nil
	}
	recent := m.recent()
	if len(recent) == 0 {
		return nil
	}
	id := recent[m.decisionRow()].Request
	m.overlay = &overlay{title: "request " + printable(id), id: id, text: func(int) []string { return []string{"asking…"} }}
	return func() tea.Msg { return m.explain(id) }
}

// inFull tells all about a worker as it is.
func (m *top) inFull(id string, cells int) []string {
	for i := range m.rows {
		if m.rows[i].ID == id {
			return m.rows[i].lines(cells)
		}
	}
	return []string{"the worker has left"}
}

// show fills the overlay that waits for it.
func (m *top) show(x explained) {
	o := m.overlay
	if o == nil || o.id == "" || o.id != x.id {
		return
	}
	o.top, o.left = 0, 0
	if x.err != nil {
		o.text = func(cells int) []string { return wrap(printable(x.err.Error()), cells) }
		return
	}
	o.text = x.doc.lines
}

// workerRow is the row of the worker that is selected.
func (m *top) workerRow() int {
	return max(0, slices.IndexFunc(m.rows, func(r workerRow) bool { return r.ID == m.worker }))
}

// decisionRow is the row of the decision that is selected.
func (m *top) decisionRow() int {
	recent := m.recent()
	if m.decision == "" {
		return 0
	}
	for i := range recent {
		if decisionName(&recent[i]) == m.decision {
			return i
		}
	}
	return 0
}

// decisionName tells a decision from the others.
func decisionName(d *router.RecentState) string {
	return d.Request + "\x00" + d.At.Format(time.RFC3339Nano)
}

func clamp(i, n int) int { return max(0, min(i, n-1)) }
