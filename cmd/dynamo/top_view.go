package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/dynamo-go/dynamo/router"
)

// paint styles text for a terminal; the zero paint leaves it as it is.
type paint struct {
	on     bool // attributes
	colour bool
}

// Styles, as parameters of SGR.
const (
	bold    = "1"
	faint   = "2"
	reverse = "7"
	red     = "31"
	green   = "32"
	yellow  = "33"
	cyan    = "36"
)

func (p paint) style(code, s string) string {
	if !p.on || code == "" || s == "" || !p.colour && len(code) == 2 {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[m"
}

// cell is a piece of a line.
type cell struct {
	text  string
	cells int // its width
	right bool
	style string
}

// row sets cells side by side, one cell between them, in a line of so many cells.
// The row that is selected is shown in reverse.
func (p paint) row(cells []cell, wide int, selected bool) string {
	var b strings.Builder
	left := wide
	for i, c := range cells {
		if i > 0 && left > 0 {
			b.WriteByte(' ')
			left--
		}
		n := min(c.cells, left)
		if n <= 0 {
			continue
		}
		text := fit(c.text, n, c.right)
		if !selected {
			text = p.style(c.style, text)
		}
		b.WriteString(text)
		left -= n
	}
	if selected {
		return p.style(reverse, b.String()+strings.Repeat(" ", max(0, left)))
	}
	return b.String()
}

// View draws the terminal.
func (m *top) View() tea.View {
	v := tea.NewView(strings.Join(m.frame(m.width, m.height), "\n"))
	v.AltScreen = true
	v.WindowTitle = "dynamo top"
	return v
}

// frame draws lines of at most so many cells. high is how many lines there may be;
// 0 sets no bound, and leaves out what is of use only to someone with keys.
func (m *top) frame(wide, high int) []string {
	wide = max(wide, 1)
	lines := m.header(wide)
	if high <= 0 {
		lines = append(lines, "")
		lines = append(lines, m.workers(wide, len(m.rows))...)
		lines = append(lines, "")
		return append(lines, m.decisions(wide, len(m.recent()))...)
	}
	room := high - len(lines) - 1
	if m.overlay != nil {
		lines = append(lines, m.covered(wide, room)...)
	} else {
		lines = append(lines, m.tables(wide, room)...)
	}
	lines = lines[:min(len(lines), max(0, high-1))]
	for len(lines) < high-1 {
		lines = append(lines, "")
	}
	return append(lines, m.footer(wide))
}

// header says how the router as a whole does.
func (m *top) header(wide int) []string {
	first := "dynamo top  " + m.base
	s := m.current()
	if s == nil {
		lines := []string{m.paint.style(bold, cut(first, wide))}
		if m.err == nil && !m.answered.IsZero() {
			for _, line := range wrap(noRouters, wide) {
				lines = append(lines, m.paint.style(yellow, line))
			}
			return lines
		}
		return append(lines, m.paint.style(red, cut(m.trouble(), wide)))
	}
	st := s.last()
	first += "  model " + cut(orDash(s.key), 40)
	if n := len(m.series); n > 1 {
		first += fmt.Sprintf(" (%d of %d)", 1+slices.Index(m.series, s), n)
	}
	first += "  mode " + cut(orDash(st.Mode), 20)
	if m.paused {
		first += "  PAUSED"
	}
	lines := []string{m.paint.style(bold, cut(first, wide))}
	if m.err != nil {
		lines = append(lines, m.paint.style(red, cut(m.trouble(), wide)))
	} else {
		lines = append(lines, cut(ratesLine(s.rates()), wide))
	}
	counts := fmt.Sprintf("%d at workers  %d waiting  %s worker refusals  %s without a worker  %s given up",
		st.Booked, st.Waiting, quantity(float64(st.Refusals)), quantity(float64(st.Refused)), quantity(float64(st.Abandoned)))
	style := ""
	if st.Waiting > 0 {
		style = yellow
	}
	lines = append(lines, m.paint.style(style, cut(counts, wide)))
	return append(lines, m.paint.style(faint, cut(fleet(m.rows)+"  index "+indexText(&st.Index), wide)))
}

// trouble says for how long there has been no answer, and why.
func (m *top) trouble() string {
	if m.err == nil {
		return "asking…"
	}
	why := m.err
	var op *net.OpError
	if errors.As(m.err, &op) { // around it stand addresses, which the first line has
		why = op.Err
	}
	if m.answered.IsZero() {
		return "no answer yet: " + printable(why.Error())
	}
	ago := m.now().Sub(m.answered).Round(time.Second)
	return fmt.Sprintf("no answer since %s (%v): %s", m.answered.Format(time.TimeOnly), ago, printable(why.Error()))
}

func ratesLine(r rates) string {
	if math.IsNaN(r.requests) {
		return fmt.Sprintf("– req/s  – decisions/s  hit rate – now, %s in all", percent(r.totalHit))
	}
	s := fmt.Sprintf("%s req/s  %s decisions/s  hit rate %s", perSecond(r.requests), perSecond(r.decisions), percent(r.hit))
	if !math.IsNaN(r.index) {
		s += fmt.Sprintf(" (index said %s)", percent(r.index))
	}
	return s + fmt.Sprintf(" in %.0f s, %s in all", r.seconds, percent(r.totalHit))
}

// fleet counts the workers by state.
func fleet(rows []workerRow) string {
	states := map[string]int{}
	for i := range rows {
		states[cut(orDash(rows[i].State), 12)]++
		if rows[i].stale {
			states["stale"]++ // beside up
		}
	}
	var parts []string
	for _, state := range ordered(states, []string{"up", "stale", "draining", "down"}) {
		parts = append(parts, fmt.Sprintf("%d %s", states[state], state))
	}
	s := fmt.Sprintf("%d workers", len(rows))
	if len(rows) == 1 {
		s = "1 worker"
	}
	if len(parts) > 0 {
		s += ": " + strings.Join(parts[:min(len(parts), 5)], ", ")
	}
	return s
}

func indexText(x *router.IndexState) string {
	if x.Sources == 0 && x.Blocks == 0 && x.Bytes == 0 {
		return "none"
	}
	s := fmt.Sprintf("%s blocks, %s", quantity(float64(x.Blocks)), mib(max(0, x.Bytes)))
	if x.Limit > 0 {
		s += " of " + mib(x.Limit)
	}
	return s + fmt.Sprintf(", %d sources", x.Sources)
}

// tables shares the room between the tables: the decisions have a third of it or
// more, the workers what is left.
func (m *top) tables(wide, room int) []string {
	const headings = 3 // of the two tables, and a line between them
	left := max(0, room-headings)
	decisions := min(len(m.recent()), max(left/3, left-len(m.rows)))
	lines := m.workers(wide, left-decisions)
	for len(lines) < room-decisions-1 { // the decisions keep their place at the bottom
		lines = append(lines, "")
	}
	return append(lines, m.decisions(wide, decisions)...)
}

// window returns which of n rows are shown so that row at is among them.
func window(at, n, room int) (first, end int) {
	room = clamp(room, n+1)
	first = max(0, min(at-room/2, n-room))
	return first, first + room
}

// span says which rows are shown, where that is not all.
func span(first, end, n int) string {
	if end-first >= n {
		return ""
	}
	if end == first {
		return fmt.Sprintf(" 0 of %d", n)
	}
	return fmt.Sprintf(" %d–%d of %d", first+1, end, n)
}

// workerWidths are those of the workers' table that differ: a narrow table fills 80
// cells exactly.
type workerWidths struct {
	id, load, kv, cache int
	remark              int // 0: without the columns of lesser need
}

func widthsFor(wide int) workerWidths {
	const needed = 107 // without a remark
	if wide < needed+5 {
		return workerWidths{id: shortID, load: 6, kv: 6, cache: 6}
	}
	bars := min(12, (wide-needed)/5)
	return workerWidths{id: 16, load: 6 + bars, kv: 6 + bars, cache: 11, remark: wide - needed - 2*bars}
}

// shortID is how much of a worker's id is shown where there is no room for all.
const shortID = 8

func idText(id string, cells int) string {
	if id = orDash(id); cells > shortID {
		return id
	}
	return id[:prefix(id, cells)]
}

// workers draws the workers' table with so many rows.
func (m *top) workers(wide, room int) []string {
	w := widthsFor(wide)
	at := m.workerRow()
	first, end := window(at, len(m.rows), room)
	active := m.paint.on && m.pane == workersPane
	head := []cell{{text: marker(active), cells: 2}, {text: "WORKER", cells: w.id}, {text: "STATE", cells: 8}, {text: "LOAD", cells: w.load}, {text: "+queue", cells: 8}}
	if s := span(first, end, len(m.rows)); s != "" { // in the place of these headings
		head = []cell{head[0], {text: "WORKERS" + s, cells: w.id + w.load + 19}}
	}
	head = append(head, cell{text: "KV", cells: w.kv + 5}, cell{text: "HIT", cells: 6, right: true}, cell{text: "TTFT/est ms", cells: 11, right: true}, cell{text: "CACHE", cells: w.cache}, cell{text: "AGE", cells: 5, right: true})
	if w.remark > 0 {
		head = append(head, cell{text: "BOOKED", cells: 6, right: true}, cell{text: "BLOCKS", cells: 6, right: true}, cell{text: "LABELS, FAULT", cells: w.remark})
	}
	lines := []string{m.paint.style(cyan, m.paint.row(head, wide, false))}
	for i := first; i < end; i++ {
		lines = append(lines, m.paint.row(m.rows[i].cells(w, i == at && active), wide, i == at && active))
	}
	return lines
}

// marker marks what is selected.
func marker(selected bool) string {
	if selected {
		return "▸"
	}
	return ""
}

// cells are a worker's line.
func (r *workerRow) cells(w workerWidths, selected bool) []cell {
	mark, style := " ", ""
	switch {
	case r.State == "draining":
		mark, style = "~", yellow
	case r.State != "up":
		mark, style = "✗", red
	case r.stale:
		mark, style = "!", yellow
	case r.Fault != "":
		mark, style = "?", yellow
	}
	loadStyle, kvStyle := barStyle(r.load, r.Queued > 0), barStyle(r.kv, false)
	load := quantity(float64(r.Running))
	if r.Queued > 0 {
		load += "+" + quantity(float64(r.Queued))
	}
	if r.ReportMillis < 0 {
		load = quantity(float64(r.Booked))
	}
	if r.MaxRunning > 0 {
		load += "/" + quantity(float64(r.MaxRunning))
	}
	hit := percent(r.hit)
	if !r.recent && !math.IsNaN(r.hit) {
		hit = "(" + hit + ")"
	}
	ttft := "–"
	if r.TTFTMillis > 0 {
		ttft = shortMillis(r.TTFTMillis) + "/–"
		if r.PredictedMillis > 0 {
			ttft = shortMillis(r.TTFTMillis) + "/" + shortMillis(r.PredictedMillis)
		}
	}
	ageStyle := ""
	if r.stale {
		ageStyle = yellow
	}
	cells := []cell{{text: marker(selected) + mark, cells: 2, style: style, right: true}, {text: idText(r.ID, w.id), cells: w.id}, {text: orDash(r.State), cells: 8, style: style},
		{text: bar(r.load, w.load), cells: w.load, style: loadStyle}, {text: load, cells: 8},
		{text: bar(r.kv, w.kv), cells: w.kv, style: kvStyle}, {text: percent(r.kv), cells: 4, right: true},
		{text: hit, cells: 6, right: true}, {text: ttft, cells: 11, right: true}, {text: cacheText(r.Cache, w.cache), cells: w.cache, style: cacheStyle(r.Cache)}, {text: shortAge(r.ReportMillis), cells: 5, right: true, style: ageStyle}}
	if w.remark > 0 {
		cells = append(cells, cell{text: quantity(float64(r.Booked)), cells: 6, right: true}, cell{text: quantity(float64(r.Blocks)), cells: 6, right: true}, cell{text: r.remark(), cells: w.remark, style: faint})
	}
	return cells
}

func barStyle(share float64, over bool) string {
	switch {
	case over || share >= 0.95:
		return red
	case share >= 0.75:
		return yellow
	}
	return green
}

// cacheText writes a cache's state; the long ones are shortened where they must be.
func cacheText(state string, cells int) string {
	switch {
	case cells < len("repairing") && state == "repairing":
		return "repair"
	case cells < len("approximate") && state == "approximate":
		return "approx"
	}
	return orDash(state)
}

func cacheStyle(state string) string {
	switch state {
	case "exact":
		return green
	case "repairing":
		return yellow
	}
	return faint
}

// remark is the fault of a worker, or else its labels.
func (r *workerRow) remark() string {
	if r.Fault != "" {
		return printable(r.Fault)
	}
	return labelText(r.Labels)
}

func labelText(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if len(parts) == maxShownKeys {
			parts = append(parts, "…")
			break
		}
		parts = append(parts, printable(k)+"="+printable(labels[k]))
	}
	return strings.Join(parts, " ")
}

// lines tell all about a worker, in lines of so many cells.
func (r *workerRow) lines(cells int) []string {
	fault := "none"
	if r.Fault != "" {
		fault = printable(r.Fault)
	}
	labels := labelText(r.Labels)
	if labels == "" {
		labels = "none"
	}
	hit := percent(ratio(r.CachedTokens, r.PromptTokens))
	report := "none came"
	if r.ReportMillis >= 0 {
		report = shortAge(r.ReportMillis) + " ago"
	}
	facts := [][2]string{
		{"state", orDash(r.State)}, {"fault", fault}, {"epoch", strconv.FormatUint(r.Epoch, 10)}, {"labels", labels},
		{"booked here", fmt.Sprintf("%d requests, %d tokens", r.Booked, r.BookedTokens)},
		{"report", report},
		{"running", fmt.Sprintf("%d of at most %d, %d queued", r.Running, r.MaxRunning, r.Queued)},
		{"KV blocks", fmt.Sprintf("%d of %d used", r.KVUsed, r.KVBlocks)},
		{"index", fmt.Sprintf("%s, %d blocks", orDash(r.Cache), r.Blocks)},
		{"prompts", fmt.Sprintf("%d tokens, %d of them cached (%s)", r.PromptTokens, r.CachedTokens, hit)},
		{"TTFT", fmt.Sprintf("%s observed, %s predicted (means of the last)", millis(r.TTFTMillis), millis(r.PredictedMillis))},
	}
	var all []string
	for _, f := range facts {
		for i, line := range wrap(f[1], max(8, cells-14)) {
			name := f[0]
			if i > 0 {
				name = ""
			}
			all = append(all, fit(name, 12, false)+"  "+line)
		}
	}
	return all
}

// decisions draws the last decisions with so many rows.
func (m *top) decisions(wide, room int) []string {
	recent := m.recent()
	id, request, overlap := shortID, 23, 6
	if wide >= 112 {
		more := wide - 112
		id, request, overlap = 16, 36+min(12, more), 12+min(24, max(0, more-12))
	}
	at := m.decisionRow()
	first, end := window(at, len(recent), room)
	active := m.paint.on && m.pane == decisionsPane
	head := []cell{{text: marker(active), cells: 2}, {text: "AGE", cells: 5, right: true}, {text: "REQUEST" + span(first, end, len(recent)), cells: request}, {text: "WORKER", cells: id},
		{text: "OVERLAP, blocks", cells: overlap + 10}, {text: "COST ms", cells: 8, right: true}, {text: "QUEUE ms", cells: 8, right: true}, {text: "TRY", cells: 3, right: true}}
	lines := []string{m.paint.style(cyan, m.paint.row(head, wide, false))}
	for i := first; i < end; i++ {
		d := &recent[i]
		age := int64(-1)
		if !d.At.IsZero() {
			age = max(0, m.current().last().At.Sub(d.At).Milliseconds())
		}
		selected := i == at && active
		when := shortAge(age)
		if age < 0 {
			when = "–"
		}
		lines = append(lines, m.paint.row([]cell{{text: marker(selected), cells: 2}, {text: when, cells: 5, right: true}, {text: orDash(d.Request), cells: request}, {text: idText(d.Worker, id), cells: id},
			{text: bar(ratio(d.Overlap, d.Blocks), overlap), cells: overlap, style: green}, {text: quantity(float64(d.Overlap)) + "/" + quantity(float64(d.Blocks)), cells: 9},
			{text: shortMillis(d.CostMillis), cells: 8, right: true}, {text: shortMillis(d.QueueMillis), cells: 8, right: true}, {text: strconv.Itoa(d.Attempt), cells: 3, right: true}}, wide, selected))
	}
	return lines
}

// covered draws the overlay.
func (m *top) covered(wide, room int) []string {
	o := m.overlay
	text := o.text(wide)
	space := max(1, room-1)
	first := max(0, min(o.top, len(text)-space))
	lines := []string{m.paint.style(cyan, cut(o.title+span(first, min(len(text), first+space), len(text)), wide))}
	for _, line := range text[first:min(len(text), first+space)] {
		lines = append(lines, cut(skip(line, o.left), wide))
	}
	return lines
}

// skip returns what of a line is right of its first cells.
func skip(line string, cells int) string {
	for i, r := range line {
		if cells <= 0 {
			return line[i:]
		}
		cells -= runeWidth(r)
	}
	return ""
}

// footer says what the keys do.
func (m *top) footer(wide int) string {
	text := fmt.Sprintf("q quit  tab other table  ↑↓ select  enter explain  s sort (%s)  p pause", m.sort)
	if len(m.series) > 1 {
		text += "  1-9 model"
	}
	if m.overlay != nil {
		text = "q back  ↑↓ ←→ scroll  p pause"
	}
	if m.paused {
		text = strings.Replace(text, "p pause", "p go on", 1)
	}
	return m.paint.style(faint, cut(text, wide))
}
