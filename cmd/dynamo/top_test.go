package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	tea "charm.land/bubbletea/v2"
	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo/router"
)

var update = flag.Bool("update", false, "write the golden frames anew")

// golden compares lines with a file of testdata/top.
func golden(t *testing.T, name string, lines []string) {
	t.Helper()
	got := ""
	for _, line := range lines {
		got += strings.TrimRight(line, " ") + "\n"
	}
	path := filepath.Join("testdata", "top", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update writes it anew); got:\n%s", path, got)
	}
}

var epoch = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// state is a router with n workers after so many seconds.
func state(model string, n int, seconds int) router.State {
	s := uint64(seconds)
	st := router.State{
		Model: model, Mode: "kv", At: epoch.Add(time.Duration(seconds) * time.Second), Booked: 3 * n, Waiting: 2, Decisions: 100 + 13*s, Refusals: s, Ended: 90 + 12*s,
		Refused: 4, Abandoned: 1, PromptTokens: 50_000 + 8400*s, CachedTokens: 20_000 + 7392*s, PredictedTokens: 20_000 + 7140*s,
		Index: router.IndexState{Sources: n, Blocks: 12_345, Bytes: 300 << 10, Limit: 64 << 20},
	}
	for i := range n {
		w := router.WorkerState{
			ID: fmt.Sprintf("%016x", 0xa1b2c3d4e5f60000+uint64(i)*0x0123456789abcdef), Epoch: 1, State: "up", Labels: map[string]string{"zone": "a", "rack": fmt.Sprint(i)},
			Booked: 3, BookedTokens: 2100, Running: i % 9, Queued: max(0, i%9-7), MaxRunning: 8, KVBlocks: 1000, KVUsed: 125 * (i % 9), ReportMillis: int64(12 + i),
			Cache: "exact", Blocks: uint64(1500 + i), PromptTokens: 6000 + uint64(i)*s*10, CachedTokens: 3000 + uint64(i)*s*9, TTFTMillis: 22.4 + float64(i), PredictedMillis: 21.9,
		}
		st.Workers = append(st.Workers, w)
	}
	for i := range min(n, 12) {
		st.Recent = append(st.Recent, router.RecentState{
			Request: fmt.Sprintf("chatcmpl-%032x", 0xfeed00+seconds*16-i), At: st.At.Add(-time.Duration(i*130) * time.Millisecond), Worker: st.Workers[i].ID, Blocks: 43, Overlap: 43 - 4*i, CostMillis: 21.9 + float64(i*7), QueueMillis: 0.1, Attempt: 1 + i/8,
		})
	}
	return st
}

// mixed is a fleet whose workers are in different states.
func mixed(seconds int) router.State {
	st := state("tiny", 8, seconds)
	w := st.Workers
	w[1].State, w[1].Fault = "down", "lost its device"
	w[2].State = "draining"
	w[3].ReportMillis = 4200
	w[4].ReportMillis, w[4].Cache, w[4].TTFTMillis = -1, "none", 0
	w[5].Cache, w[5].Fault = "approximate", "out of memory"
	w[6].Cache, w[6].PromptTokens, w[6].CachedTokens = "repairing", 0, 0
	w[7].KVUsed, w[7].Running, w[7].Queued = 990, 8, 3
	return st
}

// seen returns a view of the given size that was given readings a second apart.
func seen(wide, high int, readings ...[]router.State) *top {
	m := newTop(topConfig{base: "http://127.0.0.1:8000", interval: time.Second, now: func() time.Time { return epoch.Add(20 * time.Second) }, paint: paint{on: true},
		poll: func() tea.Msg { return nil }, explain: func(string) tea.Msg { return nil }})
	m.Update(tea.WindowSizeMsg{Width: wide, Height: high})
	for i, r := range readings {
		m.Update(reading{at: epoch.Add(time.Duration(i) * time.Second), routers: r})
	}
	return m
}

// screen is what View draws, without attributes.
func screen(m *top) []string {
	return strings.Split(plain(m.View().Content), "\n")
}

// plain takes the attributes away that this package's paint writes.
func plain(s string) string {
	for _, code := range []string{"", bold, faint, reverse, red, green, yellow, cyan} {
		s = strings.ReplaceAll(s, "\x1b["+code+"m", "")
	}
	return s
}

func press(m *top, keys ...string) tea.Cmd {
	var cmd tea.Cmd
	for _, k := range keys {
		msg := tea.KeyPressMsg{Text: k}
		switch k {
		case "enter":
			msg = tea.KeyPressMsg{Code: tea.KeyEnter}
		case "tab":
			msg = tea.KeyPressMsg{Code: tea.KeyTab}
		case "esc":
			msg = tea.KeyPressMsg{Code: tea.KeyEscape}
		case "down":
			msg = tea.KeyPressMsg{Code: tea.KeyDown}
		case "up":
			msg = tea.KeyPressMsg{Code: tea.KeyUp}
		case "end":
			msg = tea.KeyPressMsg{Code: tea.KeyEnd}
		case "right":
			msg = tea.KeyPressMsg{Code: tea.KeyRight}
		case "ctrl+c":
			msg = tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}
		default:
			msg.Code = []rune(k)[0]
		}
		_, cmd = m.Update(msg)
	}
	return cmd
}

func TestTopFrames(t *testing.T) {
	two := [][]router.State{{mixed(0)}, {mixed(10)}}
	thousand := [][]router.State{{state("tiny", 1000, 0)}, {state("tiny", 1000, 10)}}
	for _, c := range []struct {
		name string
		m    *top
	}{
		{"80x24", seen(80, 24, two...)},
		{"160x30", seen(160, 30, two...)},
		{"thousand", seen(80, 24, thousand...)},
		{"first", seen(80, 24, two[0])},
		{"small", seen(30, 9, two...)},
		{"empty", seen(80, 8, nil)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "thousand" {
				press(c.m, "end", "k")
			}
			golden(t, c.name, screen(c.m))
		})
	}
}

// Whatever its size, a frame fits it.
func TestTopFitsItsTerminal(t *testing.T) {
	hostile := state("tiny", 40, 3)
	hostile.Model = strings.Repeat("名", 3000)
	hostile.Workers[0].Labels = map[string]string{"a": strings.Repeat("x", 1<<16)}
	for _, all := range [][]router.State{nil, {mixed(3)}, {state("tiny", 1000, 3)}, {hostile, mixed(3)}} {
		for _, wide := range []int{0, 1, 7, 40, 79, 80, 81, 111, 112, 113, 160, 400} {
			for _, high := range []int{1, 2, 5, 8, 9, 24, 25, 60} {
				m := seen(wide, high, all)
				for _, keys := range [][]string{nil, {"tab"}, {"end"}, {"enter"}} {
					press(m, keys...)
					lines := screen(m)
					if len(lines) > high {
						t.Fatalf("%dx%d after %q: %d lines", wide, high, keys, len(lines))
					}
					for _, line := range lines {
						if n := textWidth(line); n > max(wide, 1) {
							t.Fatalf("%dx%d after %q: a line of %d cells: %q", wide, high, keys, n, line)
						}
					}
				}
			}
		}
	}
}

func TestTopSelects(t *testing.T) {
	m := seen(80, 24, []router.State{mixed(0)})
	press(m, "down", "j", "j", "up")
	if got, want := m.worker, mixed(0).Workers[2].ID; got != want {
		t.Errorf("after down, j, j, up worker %q is selected, want %q", got, want)
	}
	press(m, "s", "s") // by load: the selection stays with its worker
	if got, want := m.rows[0].ID, mixed(0).Workers[7].ID; got != want {
		t.Errorf("sorted by load worker %q is first, want %q", got, want)
	}
	if got, want := m.rows[m.workerRow()].ID, mixed(0).Workers[2].ID; got != want {
		t.Errorf("after sorting worker %q is selected, want %q", got, want)
	}
	press(m, "tab")
	if got := m.decisionRow(); got != 0 {
		t.Errorf("decision %d is selected at first, want the newest", got)
	}
	press(m, "j", "j")
	request := m.recent()[2].Request
	m.Update(reading{at: epoch.Add(time.Second), routers: []router.State{shifted(mixed(0), 3)}})
	if got := m.recent()[m.decisionRow()].Request; got != request || m.decisionRow() != 5 {
		t.Errorf("after three more decisions %q in row %d is selected, want %q in row 5", got, m.decisionRow(), request)
	}
	press(m, "g")
	m.Update(reading{at: epoch.Add(2 * time.Second), routers: []router.State{mixed(2)}})
	if got := m.decisionRow(); got != 0 {
		t.Errorf("decision %d is selected, want the newest, which was", got)
	}
}

func TestTopWithoutColour(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want bool
	}{{nil, true}, {map[string]string{"NO_COLOR": "1"}, false}, {map[string]string{"NO_COLOR": ""}, true}, {map[string]string{"TERM": "dumb"}, false}} {
		got := colourful(func(k string) (string, bool) { v, ok := c.env[k]; return v, ok })
		if got != c.want {
			t.Errorf("%v: colours %v, want %v", c.env, got, c.want)
		}
		m := seen(80, 24, []router.State{mixed(0)})
		m.paint.colour = got
		content := m.View().Content
		if strings.Contains(content, "\x1b["+red+"m") != c.want || !strings.Contains(content, "\x1b["+reverse+"m") {
			t.Errorf("%v: the frame's colours are wrong: %q", c.env, content)
		}
	}
}

// shifted is st after n more decisions.
func shifted(st router.State, n int) router.State {
	st.At = st.At.Add(time.Second)
	st.Decisions += uint64(n)
	for i := range n {
		st.Recent = append([]router.RecentState{{Request: fmt.Sprint("new-", i), At: st.At, Attempt: 1}}, st.Recent...)
	}
	return st
}

func TestTopQuits(t *testing.T) {
	quits := func(cmd tea.Cmd) bool {
		if cmd == nil {
			return false
		}
		_, is := cmd().(tea.QuitMsg)
		return is
	}
	m := seen(80, 24, []router.State{mixed(0)})
	if !quits(press(m, "ctrl+c")) || !quits(press(m, "q")) {
		t.Error("q and ctrl+c must end the program")
	}
	press(m, "enter")
	if m.overlay == nil || quits(press(m, "q")) || m.overlay != nil {
		t.Error("q in an overlay must close the overlay and no more")
	}
	press(m, "enter")
	if !quits(press(m, "ctrl+c")) {
		t.Error("ctrl+c must end the program from an overlay too")
	}
}

func TestTopPauses(t *testing.T) {
	m := seen(80, 24)
	polls := 0
	m.poll = func() tea.Msg { polls++; return nil }
	run := func(cmd tea.Cmd) {
		if cmd != nil {
			cmd()
		}
	}
	run(m.Init())
	if run(m.ask()); polls != 1 {
		t.Errorf("%d questions at once, want 1", polls)
	}
	m.Update(reading{at: epoch, routers: []router.State{mixed(0)}})
	press(m, "p")
	_, cmd := m.Update(tick(m.round))
	if run(cmd); polls != 1 {
		t.Errorf("a tick while paused asks")
	}
	if !strings.Contains(screen(m)[0], "PAUSED") {
		t.Errorf("the header does not say that it is paused: %q", screen(m)[0])
	}
	old := m.round
	run(press(m, "p"))
	if polls != 2 {
		t.Errorf("%d questions after going on, want 2", polls)
	}
	m.Update(reading{at: epoch, routers: []router.State{mixed(1)}})
	_, cmd = m.Update(tick(old))
	if run(cmd); polls != 2 {
		t.Errorf("the tick of a round before the pause asks")
	}
	_, cmd = m.Update(tick(m.round))
	if run(cmd); polls != 3 {
		t.Errorf("%d questions after a tick, want 3", polls)
	}
}

func TestTopModels(t *testing.T) {
	m := seen(80, 24, []router.State{state("b", 2, 0), state("a", 3, 0), state("a", 4, 0)})
	for _, c := range []struct {
		key, model string
		workers    int
	}{{"", "a", 3}, {"2", "a (2)", 4}, {"3", "b", 2}, {"4", "b", 2}, {"1", "a", 3}} {
		if c.key != "" {
			press(m, c.key)
		}
		if m.key != c.model || len(m.rows) != c.workers {
			t.Errorf("key %q shows %q with %d workers, want %q with %d", c.key, m.key, len(m.rows), c.model, c.workers)
		}
	}
	m.Update(reading{at: epoch, routers: []router.State{state("b", 2, 1)}})
	if m.key != "b" {
		t.Errorf("model %q is shown after a has gone, want b", m.key)
	}
}

func TestTopServerGoesAway(t *testing.T) {
	m := seen(80, 24)
	m.Update(reading{at: epoch, err: errors.New("connection refused")})
	if got := screen(m)[1]; got != "no answer yet: connection refused" {
		t.Errorf("before the first answer: %q", got)
	}
	m.Update(reading{at: epoch.Add(13 * time.Second), routers: []router.State{mixed(0)}})
	m.Update(reading{at: epoch.Add(14 * time.Second), err: errors.New("connection\x1b[2J refused")})
	lines := screen(m)
	if got, want := lines[1], "no answer since 12:00:13 (7s): connection·[2J refused"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !strings.Contains(strings.Join(lines, "\n"), mixed(0).Workers[0].ID[:7]) {
		t.Error("the last state is not shown while the server is away")
	}
	m.Update(reading{at: epoch.Add(14 * time.Second), err: fmt.Errorf("ask: %w", &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")})})
	if got, want := screen(m)[1], "no answer since 12:00:13 (7s): connection refused"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	m.Update(reading{at: epoch.Add(15 * time.Second), routers: []router.State{mixed(1)}})
	if got := screen(m)[1]; !strings.HasPrefix(got, "12.0 req/s") {
		t.Errorf("after its return: %q", got)
	}
}

func TestTopExplains(t *testing.T) {
	m := seen(80, 24, []router.State{mixed(0)})
	asked := ""
	m.explain = func(id string) tea.Msg {
		asked = id
		doc, err := parseExplanation([]byte(record))
		return explained{id: id, doc: doc, err: err}
	}
	press(m, "tab", "j")
	msg := press(m, "enter")()
	if want := mixed(0).Recent[1].Request; asked != want {
		t.Errorf("asked for %q, want %q", asked, want)
	}
	m.Update(msg)
	golden(t, "explain", screen(m))
	press(m, "end")
	golden(t, "explain-end", screen(m))
	press(m, "esc")
	m.Update(msg) // of an overlay that is gone
	if m.overlay != nil {
		t.Error("a late answer opens the overlay again")
	}
	cmd := press(m, "enter")
	m.Update(explained{id: "another", err: errors.New("late")}) // of an overlay before
	if got := screen(m)[5]; got != "asking…" {
		t.Errorf("another request's record is shown: %q", got)
	}
	m.Update(explained{id: mixed(0).Recent[1].Request, err: errors.New("no record")})
	if got := screen(m)[5]; cmd == nil || got != "no record" {
		t.Errorf("a failure is shown as %q", got)
	}
}

func TestTopWorkerInFull(t *testing.T) {
	m := seen(60, 24, []router.State{mixed(0)})
	press(m, "j", "enter")
	golden(t, "worker", screen(m))
}

func TestTopRates(t *testing.T) {
	s := &series{}
	at := func(seconds int, ended, prompt, cached uint64) *router.State {
		return &router.State{At: epoch.Add(time.Duration(seconds) * time.Second), Ended: ended, Decisions: 2 * ended, PromptTokens: prompt, CachedTokens: cached}
	}
	for i := range 30 { // hits from the twentieth second on
		n := uint64(i)
		s.add(at(i, 5*n, 1000*n, 900*max(n, 19)-900*19))
	}
	r := s.rates()
	if r.requests != 5 || r.decisions != 10 || r.seconds != 10 || r.hit != 0.9 || math.Abs(r.totalHit-9.0/29) > 1e-9 {
		t.Errorf("got %+v", r)
	}
	s.add(at(31, 3, 10, 0)) // the router began anew
	if r := s.rates(); !math.IsNaN(r.requests) || r.totalHit != 0 {
		t.Errorf("after a new beginning: %+v", r)
	}
	for i := range 1000 {
		s.add(&router.State{At: epoch.Add(time.Minute + time.Duration(i)*time.Millisecond), Ended: 10, Decisions: 20, PromptTokens: 10})
	}
	if len(s.states) > maxStates {
		t.Errorf("%d states are kept, limit %d", len(s.states), maxStates)
	}
}

func TestTopHostile(t *testing.T) {
	evil := "\x1b]0;owned\x07\u009b2J\u202e\nnext\x00" + strings.Repeat("\u0301", 4000)
	for _, body := range []string{
		`{}`, `{"routers":null}`, `{"routers":[{}]}`, `{"routers":[{"workers":[{}],"recent":[{}]}]}`,
		`{"routers":[{"model":` + quoted(evil) + `,"mode":` + quoted(evil) + `,"workers":[{"id":` + quoted(evil) + `,"state":` + quoted(evil) + `,"cache":` + quoted(evil) + `,"fault":` + quoted(evil) + `,"labels":{` + quoted(evil) + `:` + quoted(evil) + `}}],"recent":[{"request":` + quoted(evil) + `,"worker":` + quoted(evil) + `}]}]}`,
		`{"routers":[{"booked":-9223372036854775808,"waiting":-5,"decisions":18446744073709551615,"index":{"bytes":-9223372036854775808,"limit_bytes":9223372036854775807,"sources":-1},"workers":[{"running":-9223372036854775808,"queued":9223372036854775807,"max_running":-1,"kv_used":-7,"kv_blocks":3,"ttft_ms":1e308,"predicted_ttft_ms":-1e308,"report_ms":9223372036854775807},{"running":9223372036854775807,"queued":9223372036854775807,"max_running":1}],"recent":[{"blocks":-1,"overlap":9223372036854775807,"cost_ms":-1e300,"attempt":-9223372036854775808,"at":"0001-01-01T00:00:00Z"}]}]}`,
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }))
		e, err := (&endpointFlags{URL: s.URL}).open()
		if err != nil {
			t.Fatal(err)
		}
		r := e.readRouters(t.Context())
		s.Close()
		if r.err != nil {
			t.Errorf("%.60s: %v", body, r.err)
			continue
		}
		for _, wide := range []int{40, 80, 200} {
			m := seen(wide, 24, r.routers, r.routers)
			for _, keys := range [][]string{nil, {"enter"}, {"esc", "tab", "s", "s", "s"}, {"enter"}} {
				press(m, keys...)
				harmless(t, screen(m))
			}
			harmless(t, m.frame(200, 0)[:1])
		}
	}
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// harmless checks that lines hold nothing a terminal acts on.
func harmless(t *testing.T, lines []string) {
	t.Helper()
	for _, line := range lines {
		if strings.ContainsFunc(plain(line), func(r rune) bool { return r != ' ' && !unicode.IsPrint(r) }) {
			t.Errorf("a line holds what a terminal acts on: %q", line)
		}
	}
}

func TestTopAnswers(t *testing.T) {
	for _, c := range []struct {
		name, body, want string
		status           int
	}{
		{"no key", `{"error":{"message":"no such key"}}`, "401 Unauthorized: no such key; give a key with --api-key", 401},
		{"not ours", "<html>\x1b[2J</html>", "is it the address of a dynamo frontend?", 404},
		{"no JSON", "hello", "understand the answer", 200},
		{"broken", `{"routers":[{"booked":"many"}]}`, "understand the answer", 200},
		{"too long", strings.Repeat(" ", maxRouterBytes+1), "longer than 32 MiB", 200},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		}))
		e, err := (&endpointFlags{URL: s.URL}).open()
		if err != nil {
			t.Fatal(err)
		}
		if r := e.readRouters(t.Context()); r.err == nil || !strings.Contains(r.err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, r.err, c.want)
		} else {
			harmless(t, []string{r.err.Error()})
		}
		s.Close()
	}
	for _, bad := range []string{"", "ftp://x", "http://", "http://h?q", ":", "http://a b"} {
		if _, err := (&endpointFlags{URL: bad}).open(); err == nil {
			t.Errorf("--url %q is taken", bad)
		}
	}
}

// frontendOf serves states a second of theirs apart, and one record.
func frontendOf(t *testing.T, key string, states func(n int) []router.State) *httptest.Server {
	var n atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/router", func(w http.ResponseWriter, r *http.Request) {
		if key != "" && r.Header.Get("Authorization") != "Bearer "+key {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		b, err := json.Marshal(map[string]any{"routers": states(int(n.Add(1)) - 1)})
		if err != nil {
			t.Error(err)
		}
		w.Write(b)
	})
	mux.HandleFunc("GET /v1/requests/{id}/explain", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != "chatcmpl-1/2" {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"error":{"message":"no such record"}}`)
			return
		}
		io.WriteString(w, record)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// command runs the program as a script would.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: io.Discard}
	err := a.dispatch(args)
	return out.String(), err
}

func TestTopOnce(t *testing.T) {
	s := frontendOf(t, "sesame", func(n int) []router.State { return []router.State{mixed(10 * n), state("other", 1, n)} })
	got, err := command(t, "top", "--once", "--interval", "100ms", "--url", s.URL, "--api-key", "sesame")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "once", strings.Split(strings.TrimRight(strings.ReplaceAll(got, s.URL, "URL"), "\n"), "\n"))
	if _, err := command(t, "top", "--once", "--url", s.URL); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("without a key: %v", err)
	}
	if _, err := command(t, "top", "--interval", "1ms"); err == nil || !errors.As(err, new(usageError)) {
		t.Errorf("--interval 1ms: %v", err)
	}
	none := frontendOf(t, "", func(int) []router.State { return nil })
	if got, err := command(t, "top", "--interval", "100ms", "--url", none.URL); err != nil || !strings.Contains(got, noRouters) {
		t.Errorf("without routers: %q, %v", got, err)
	}
}

// The program as a whole, with a pipe in the place of its terminal.
func TestTopRuns(t *testing.T) {
	s := frontendOf(t, "", func(n int) []router.State { return []router.State{mixed(n)} })
	e, err := (&endpointFlags{URL: s.URL}).open()
	if err != nil {
		t.Fatal(err)
	}
	polled := make(chan struct{}, 100)
	m := newTop(topConfig{base: e.base, interval: minInterval, now: time.Now, paint: paint{on: true, colour: true},
		poll: func() tea.Msg { polled <- struct{}{}; return e.readRouters(t.Context()) }, explain: func(id string) tea.Msg { return e.readExplain(t.Context(), id) }})
	keys, typed := io.Pipe()
	var out bytes.Buffer
	go func() {
		<-polled
		<-polled
		<-polled // two answers have been taken in
		typed.Write([]byte("q"))
	}()
	program := tea.NewProgram(m, tea.WithContext(t.Context()), tea.WithInput(keys), tea.WithOutput(&out), tea.WithWindowSize(80, 24), tea.WithoutSignalHandler(),
		tea.WithEnvironment([]string{"TERM=xterm-256color"}))
	if _, err := program.Run(); err != nil {
		t.Fatal(err)
	}
	typed.Close()
	for _, want := range []string{mixed(0).Workers[0].ID[:7], "decisions/s", "draining"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the screen does not show %q", want)
		}
	}
}
