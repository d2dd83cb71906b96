package trace_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"iter"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench/trace"
)

// collect reads everything.
func collect(t testing.TB, all iter.Seq2[trace.Request, error]) []trace.Request {
	t.Helper()
	var got []trace.Request
	for q, err := range all {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, q)
	}
	return got
}

func lastError(all iter.Seq2[trace.Request, error]) (n int, err error) {
	for _, e := range all {
		if e != nil {
			return n, e
		}
		n++
	}
	return n, nil
}

func open(t testing.TB, name string) iter.Seq2[trace.Request, error] {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return trace.Read(bytes.NewReader(b), trace.Options{})
}

func TestReadMooncake(t *testing.T) {
	got := collect(t, open(t, "testdata/mooncake.jsonl"))
	if len(got) != 5 {
		t.Fatalf("%d requests, want 5", len(got))
	}
	want := trace.Request{At: 3 * time.Second, Input: 915, Output: 355, Hashes: []uint64{0, 462}, BlockSize: 512}
	if g := got[2]; g.At != want.At || g.Input != want.Input || g.Output != want.Output || !slices.Equal(g.Hashes, want.Hashes) || g.BlockSize != want.BlockSize {
		t.Errorf("got %+v, want %+v", g, want)
	}
}

func TestReadFields(t *testing.T) {
	const text = `
{"created_time": 1.5, "input_length": 33, "output_length": 0, "hash_ids": [18446744073709551615, -2, 7], "block_size": 16, "session_id": 12, "priority": -3, "unknown": {"text": "secret"}}
{"session_id": "12", "delay_ms": 250, "input_length": 50, "output_length": 2, "request_id": "b", "wait_for": ["a", 3], "model": "m", "finish": "stop", "ttft_ms": 12.345, "e2e_ms": 99}
`
	got := collect(t, trace.Read(strings.NewReader(text), trace.Options{}))
	want := []trace.Request{
		{At: 1500 * time.Microsecond, Input: 33, Hashes: []uint64{1<<64 - 1, 1<<64 - 2, 7}, BlockSize: 16, Session: "12", Priority: -3},
		{At: 251500 * time.Microsecond, Input: 50, Output: 2, BlockSize: 512, Session: "12", Turn: 1, Delay: 250 * time.Millisecond, ID: "b", After: []string{"a", "3"}, Model: "m", Finish: "stop", FirstToken: 12345 * time.Microsecond, Total: 99 * time.Millisecond},
	}
	same(t, got, want)
	if out := written(t, trace.FormatDynamo, got); strings.Contains(out, "secret") {
		t.Errorf("an unknown field passed through: %s", out)
	}
}

// same compares traces by their written form, which has every field.
func same(t testing.TB, got, want []trace.Request) {
	t.Helper()
	g, w := written(t, trace.FormatDynamo, got), written(t, trace.FormatDynamo, want)
	if g != w {
		t.Errorf("got\n%swant\n%s", g, w)
	}
}

func written(t testing.TB, f trace.Format, all []trace.Request) string {
	t.Helper()
	var b bytes.Buffer
	w, err := trace.WriteAs(&b, f, false)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if err := w.Request(&all[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestRoundTrip(t *testing.T) {
	s := preset(t, "agents")
	s.Requests = 300
	want := collect(t, s.All())
	for _, zipped := range []bool{false, true} {
		var b bytes.Buffer
		w, err := trace.WriteAs(&b, trace.FormatDynamo, zipped)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if err := w.Request(&want[i]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		same(t, collect(t, trace.Read(&b, trace.Options{})), want)
	}
	again := collect(t, trace.Read(strings.NewReader(written(t, trace.FormatMooncake, want)), trace.Options{BlockSize: 64}))
	for i := range again {
		if again[i].At != want[i].At.Truncate(time.Millisecond) || !slices.Equal(again[i].Hashes, want[i].Hashes) || again[i].Session != want[i].Session {
			t.Fatalf("request %d as Mooncake: got %+v, want %+v", i, again[i], want[i])
		}
	}
}

func TestReadFaults(t *testing.T) {
	const good = `{"timestamp": 5, "input_length": 10, "output_length": 2}` + "\n"
	for _, c := range []struct{ name, text, want string }{
		{"not JSON", good + "{nope}\n", "line 2: not JSON"},
		{"cut off", good + `{"timestamp": 6, "input_le`, "line 2: not JSON"},
		{"missing length", good + `{"timestamp": 6, "output_length": 2}`, "line 2: input_length: it is missing"},
		{"missing output", `{"timestamp": 6, "input_length": 2}`, "line 1: output_length: it is missing"},
		{"no prompt", good + good + `{"timestamp": 6, "input_length": 0, "output_length": 2}`, "line 3: input_length: 0 is not within 1"},
		{"too long", `{"timestamp": 6, "input_length": 1e10, "output_length": 2}`, "line 1: input_length"},
		{"text for a number", `{"timestamp": 6, "input_length": "7", "output_length": 2}`, "line 1: input_length: a JSON string is not what belongs here, a number"},
		{"no list", `{"timestamp": 6, "input_length": 7, "output_length": 2, "hash_ids": 4}`, "line 1: hash_ids: 4 is not a list"},
		{"hash", `{"timestamp": 6, "input_length": 7, "output_length": 2, "hash_ids": [1.5]}`, "line 1: hash_ids: 1.5 is not an integer"},
		{"too many hashes", `{"timestamp": 6, "input_length": 512, "output_length": 2, "hash_ids": [1,2]}`, "line 1: hash_ids: 2 hashes do not fit 512 tokens in blocks of 512, which are 1 to 1"},
		{"too few hashes", `{"timestamp": 6, "input_length": 1600, "output_length": 2, "hash_ids": [1,2]}`, "line 1: hash_ids: 2 hashes"},
		{"negative time", `{"timestamp": -6, "input_length": 7, "output_length": 2}`, "line 1: timestamp: -6 ms"},
		{"unsorted", good + "\n" + `{"timestamp": 4, "input_length": 7, "output_length": 2}`, "line 3: timestamp: 4 ms is before the 5 ms of line 1"},
		{"no time", good + `{"input_length": 7, "output_length": 2}`, "line 2: timestamp: it is missing"},
		{"first turn without time", `{"session_id": "a", "delay": 4, "input_length": 7, "output_length": 2}`, "line 1: timestamp: it is missing"},
		{"session", `{"timestamp": 6, "session_id": {}, "input_length": 7, "output_length": 2}`, "line 1: session_id"},
		{"twice", `{"timestamp": 6, "timestamp": 7, "input_length": 7, "output_length": 2}`, "line 1"},
		{"table without times", "a,b\n1,2\n", "line 1: TIMESTAMP: no such column"},
		{"table", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n2023-11-16 18:15:47,0,3\n", `line 3: ContextTokens: "0" is no number of tokens`},
		{"table's time", "TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,374,44\n", `line 2: TIMESTAMP: "yesterday"`},
		{"unsorted table", "TIMESTAMP,ContextTokens,GeneratedTokens\n3,374,44\n1,3,3\n", "line 3: timestamp: -2000 ms is before the 0 ms of line 2"},
		{"table's quotes", "TIMESTAMP,ContextTokens,GeneratedTokens\n\"3,374,44\n1,3,3\n", "line "},
		{"conversations", `[{"conversations": 4}]`, "item 1: conversations"},
		{"cut conversations", `[{"conversations": [{"from": "human", "va`, "item 1"},
	} {
		n, err := lastError(trace.Read(strings.NewReader(c.text), trace.Options{}))
		if err == nil {
			t.Errorf("%s: %d requests and no error, want %q", c.name, n, c.want)
			continue
		}
		var e *dynamo.Error
		if !strings.Contains(err.Error(), c.want) || !errors.As(err, &e) || e.Kind != dynamo.KindInvalid {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestReadEmpty(t *testing.T) {
	var zipped bytes.Buffer
	if err := gzip.NewWriter(&zipped).Close(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "\n \n", "[]", "TIMESTAMP,ContextTokens,GeneratedTokens\n", zipped.String()} {
		if n, err := lastError(trace.Read(strings.NewReader(text), trace.Options{})); n != 0 || err != nil {
			t.Errorf("%q: %d requests, error %v", text, n, err)
		}
	}
}

func TestReadTables(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []trace.Request
	}{
		{"azure 2023", "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109\r\n", []trace.Request{
			{Input: 374, Output: 44, BlockSize: 512}, {At: 4314579 * time.Microsecond, Input: 396, Output: 109, BlockSize: 512},
		}},
		{"azure 2024", "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01+00:00,2399,6\n", []trace.Request{
			{Input: 2162, Output: 5, BlockSize: 512}, {At: 990070 * time.Microsecond, Input: 2399, Output: 6, BlockSize: 512},
		}},
		{"burstgpt", "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,a,1,ChatGPT,472,18,490,Conversation log\n45,a,1,GPT-4,1087,0,1087,API log\n", []trace.Request{
			{Input: 472, Output: 18, BlockSize: 512, Model: "ChatGPT", Session: "a"}, {At: 40 * time.Second, Input: 1087, BlockSize: 512, Model: "GPT-4", Session: "a", Turn: 1},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			same(t, collect(t, trace.Read(strings.NewReader(c.text), trace.Options{})), c.want)
		})
	}
}

func TestReadShareGPT(t *testing.T) {
	const text = `[{"id": "x", "conversations": [{"from": "human", "value": "` + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" + `"}, {"from": "gpt", "value": "bbbbbbbb"}, {"from": "human", "value": "cccc"}, {"from": "gpt", "value": "dd"}]},
		{"conversations": [{"from": "gpt", "value": "no prompt"}]}]`
	got := collect(t, trace.Read(strings.NewReader(text), trace.Options{BlockSize: 4}))
	if len(got) != 2 || got[0].Input != 10 || got[0].Output != 2 || got[1].Input != 13 || got[1].Output != 1 || got[1].Turn != 1 || got[0].Session != got[1].Session {
		t.Fatalf("got %+v", got)
	}
	if len(got[0].Hashes) != 2 || len(got[1].Hashes) != 3 || !slices.Equal(got[0].Hashes, got[1].Hashes[:2]) {
		t.Errorf("the turns' hashes are %v and %v; the second must begin with the first", got[0].Hashes, got[1].Hashes)
	}
	if out := written(t, trace.FormatDynamo, got); strings.Contains(out, "aaaa") || strings.Contains(out, "cccc") {
		t.Errorf("text was kept: %s", out)
	}
	words := trace.Options{BlockSize: 4, Count: func(s string) int { return len(s) }}
	if got := collect(t, trace.Read(strings.NewReader(text), words)); got[0].Input != 40 {
		t.Errorf("counted by bytes: %d tokens, want 40", got[0].Input)
	}
}

func TestReadDelta(t *testing.T) {
	const text = `
{"session_id": "a", "timestamp": 0, "input_length": 40, "output_length": 8, "block_size": 16, "hash_ids": [1, 2, 3]}
{"session_id": "b", "timestamp": 5, "input_length": 40, "output_length": 4, "block_size": 16, "hash_ids": [1, 2, 4]}
{"session_id": "a", "delay": 100, "input_length": 20, "output_length": 4, "block_size": 16}
{"session_id": "a", "delay": 100, "input_length": 1, "output_length": 4, "block_size": 16}
`
	got := collect(t, trace.Read(strings.NewReader(text), trace.Options{Format: trace.FormatDelta}))
	for i, want := range []struct{ input, turn, blocks int }{{40, 0, 3}, {40, 0, 3}, {68, 1, 5}, {73, 2, 5}} {
		if g := got[i]; g.Input != want.input || g.Turn != want.turn || len(g.Hashes) != want.blocks {
			t.Errorf("line %d: %+v, want %+v", i, g, want)
		}
	}
	a, b, c, d := got[0].Hashes, got[1].Hashes, got[2].Hashes, got[3].Hashes
	if !slices.Equal(a[:2], b[:2]) || a[2] == b[2] || !slices.Equal(a[:2], c[:2]) || !slices.Equal(c[:4], d[:4]) || c[2] == a[2] {
		t.Errorf("what is shared is wrong: %v, %v, %v, %v", a, b, c, d)
	}
}

func TestReadBailian(t *testing.T) {
	const text = `
{"chat_id": 159, "parent_chat_id": -1, "timestamp": 61.114, "input_length": 21, "output_length": 132, "type": "text", "turn": 1, "hash_ids": [1089, 1090]}
{"chat_id": 160, "parent_chat_id": 159, "timestamp": 62, "input_length": 40, "output_length": 2, "type": "text", "turn": 2, "hash_ids": [1089, 1091, 5]}
{"chat_id": 161, "parent_chat_id": 160, "timestamp": 63, "input_length": 40, "output_length": 2, "type": "text", "turn": 3, "hash_ids": [1089, 1091, 6]}
`
	same(t, collect(t, trace.Read(strings.NewReader(text), trace.Options{})), []trace.Request{
		{At: 61114 * time.Millisecond, Input: 21, Output: 132, Hashes: []uint64{1089, 1090}, BlockSize: 16, Session: "159", ID: "159"},
		{At: 62 * time.Second, Input: 40, Output: 2, Hashes: []uint64{1089, 1091, 5}, BlockSize: 16, Session: "159", Turn: 1, ID: "160"},
		{At: 63 * time.Second, Input: 40, Output: 2, Hashes: []uint64{1089, 1091, 6}, BlockSize: 16, Session: "159", Turn: 2, ID: "161"},
	})
}

// endless is a trace larger than memory.
type endless struct{ line []byte }

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for len(p)-n >= len(e.line) {
		n += copy(p[n:], e.line)
	}
	return n, nil
}

func TestReadStreams(t *testing.T) {
	n := 0
	for _, err := range trace.Read(endless{[]byte(`{"timestamp": 5, "input_length": 10, "output_length": 2}` + "\n")}, trace.Options{}) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 10_000 {
			break
		}
	}
	for _, one := range []string{"x", `"`} {
		if _, err := lastError(trace.Read(endless{[]byte(one)}, trace.Options{Format: trace.FormatMooncake})); err == nil || !strings.Contains(err.Error(), "longer than") {
			t.Errorf("an endless line of %q: %v", one, err)
		}
	}
	for _, format := range []trace.Format{trace.FormatCSV, trace.FormatShareGPT} {
		if _, err := lastError(trace.Read(endless{[]byte(`[{"a":"`)}, trace.Options{Format: format})); err == nil {
			t.Errorf("an endless %s: no error", format)
		}
	}
}

func TestSort(t *testing.T) {
	s := preset(t, "sharegpt")
	s.Requests = 500
	want := collect(t, s.All())
	mixed := slices.Clone(want)
	for i := range mixed { // as a recorder writes: by ends
		j := (i*7919 + 13) % len(mixed)
		mixed[i], mixed[j] = mixed[j], mixed[i]
	}
	text := written(t, trace.FormatDynamo, mixed)
	var runs []*memoryRun
	spill := func() (trace.Run, error) {
		runs = append(runs, &memoryRun{})
		return runs[len(runs)-1], nil
	}
	for _, bytes := range []int{0, 20_000} {
		got := collect(t, trace.Sort(trace.Read(strings.NewReader(text), trace.Options{Unsorted: true}), trace.SortOptions{Bytes: bytes, Spill: spill}))
		same(t, got, want)
	}
	if len(runs) < 3 {
		t.Errorf("%d runs; the second sort must have made some", len(runs))
	}
	for i, r := range runs {
		if r.closed != 1 {
			t.Errorf("run %d was closed %d times", i, r.closed)
		}
	}
	if _, err := lastError(trace.Sort(trace.Read(strings.NewReader(text), trace.Options{Unsorted: true}), trace.SortOptions{Bytes: 20_000})); dynamo.KindOf(err) != dynamo.KindExhausted {
		t.Errorf("without runs: %v", err)
	}
}

type memoryRun struct {
	bytes.Buffer
	closed int
}

func (*memoryRun) Rewind() error  { return nil }
func (r *memoryRun) Close() error { r.closed++; return nil }

func FuzzRead(f *testing.F) {
	for _, s := range []string{
		`{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]}`,
		`{"session_id": 1, "timestamp": 0, "input_length": 1, "output_length": 1}` + "\n" + `{"session_id": 1, "delay": 4, "input_length": 2, "output_length": 1, "block_size": 2, "hash_ids": [-1]}`,
		"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n",
		`{"chat_id": 1, "parent_chat_id": -1, "timestamp": 6.1, "input_length": 2, "output_length": 3, "turn": 1}`,
		`[{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]`,
		"\x1f\x8b\x08\x00", "\xef\xbb\xbf{}",
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, delta bool) {
		o := trace.Options{Unsorted: true}
		if delta {
			o.Format = trace.FormatDelta
		}
		var all []trace.Request
		for q, err := range trace.Read(bytes.NewReader(b), o) {
			if err != nil {
				return
			}
			if q.Input < 1 || q.Output < 0 || q.BlockSize < 1 || len(q.Hashes) > q.Blocks() || q.At < 0 || q.Delay < 0 {
				t.Fatalf("an impossible request: %+v", q)
			}
			all = append(all, q)
		}
		text := written(t, trace.FormatDynamo, all)
		again := collect(t, trace.Read(strings.NewReader(text), trace.Options{Unsorted: true}))
		same(t, again, all)
	})
}
