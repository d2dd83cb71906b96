package remote

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// fill gives every field below v a value of its own that is not zero.
func fill(t *testing.T, v reflect.Value, n *int) {
	t.Helper()
	*n++
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(-*n))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(float64(*n) + 0.25)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(t, v.Index(i), n)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), n)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(int64(*n), 0)))
			return
		}
		for i := range v.NumField() {
			if v.Field(i).Type() == reflect.TypeFor[*dynamo.Prefix]() {
				continue // stays in its process
			}
			fill(t, v.Field(i), n)
		}
	default:
		t.Fatalf("a field of type %v: the wire form has no rule for it", v.Type())
	}
}

// TestEveryFieldOfRequest fails when a field is added to dynamo.Request or to
// dynamo.Sampling that does not travel.
func TestEveryFieldOfRequest(t *testing.T) {
	var r dynamo.Request
	n := 0
	fill(t, reflect.ValueOf(&r).Elem(), &n)
	// Of Routing a worker gets what it has use for.
	rank := 3
	r.Routing = &dynamo.Routing{Rank: &rank, ExpectedOutput: 900, Session: "s-1"}
	got, err := parseRequest(appendRequest(nil, &r))
	if err != nil {
		t.Fatal(err)
	}
	r.Deadline = time.Time{} // travels as what is left of it
	r.Lend = false           // travels as the method
	if !reflect.DeepEqual(got, &r) {
		t.Errorf("got  %+v\nwant %+v", got, &r)
	}
}

// TestEveryFieldOfChunk is the same for dynamo.Chunk and what it holds.
func TestEveryFieldOfChunk(t *testing.T) {
	var c dynamo.Chunk
	n := 0
	fill(t, reflect.ValueOf(&c).Elem(), &n)
	got := travel(t, &c, 2, 2)
	if len(got) != 1 || !reflect.DeepEqual(got[0], c) {
		t.Errorf("got  %+v\nwant %+v", got, c)
	}
}

// travel encodes and decodes one chunk; what comes out is copied.
func travel(t testing.TB, c *dynamo.Chunk, prompt, top int) (all []dynamo.Chunk) {
	t.Helper()
	var e chunkEncoder
	d := chunkDecoder{prompt: prompt, top: top}
	e.begin(*c)
	for more := true; more; {
		var b []byte
		b, more = e.next()
		if len(b) > pieceBytes+mostAlternative*(top+1)+100+len(c.Text)+len(c.Handover) {
			t.Fatalf("a message of %d bytes", len(b))
		}
		whole, err := d.decode(bytes.Clone(b))
		if err != nil {
			t.Fatal(err)
		}
		if whole {
			all = append(all, clone(&d.chunk))
		}
	}
	return all
}

func clone(c *dynamo.Chunk) dynamo.Chunk {
	k := *c
	entries := func(in []dynamo.TokenLogprob) []dynamo.TokenLogprob {
		out := slices.Clone(in)
		for i := range out {
			out[i].Top = slices.Clone(out[i].Top)
		}
		return out
	}
	k.Tokens, k.Logprobs, k.PromptLogprobs = slices.Clone(c.Tokens), entries(c.Logprobs), entries(c.PromptLogprobs)
	k.Handover = bytes.Clone(c.Handover)
	return k
}

func TestRequestValues(t *testing.T) {
	nan := math.Float32frombits(0x7fc12345)
	for _, r := range []dynamo.Request{
		{},
		{Tokens: []dynamo.TokenID{0, 127, 128, 1 << 14, math.MaxUint32}},
		{MaxTokens: -1, MinTokens: math.MinInt, Priority: math.MaxInt, N: 3},
		{Root: math.MaxUint64, Sampling: dynamo.Sampling{Seed: math.MaxUint64}},
		{Sampling: dynamo.Sampling{Temperature: nan, TopP: float32(math.Inf(1))}},
		{Sampling: dynamo.Sampling{LogitBias: []dynamo.LogitBias{{ID: math.MaxUint32, Bias: nan}}}},
		{Guided: dynamo.Guided{Kind: dynamo.GuidedJSONObject}},
		{Routing: &dynamo.Routing{Rank: new(int)}},
		{Routing: &dynamo.Routing{Session: strings.Repeat("s", 256)}, Handover: []byte("there")},
		{Guided: dynamo.Guided{Kind: dynamo.GuidedRegex, Value: "[0-9]+\x00", Whitespace: " ?", Closed: true}, Resume: tokens(1)},
	} {
		b := appendRequest(nil, &r)
		got, err := parseRequest(b)
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		if again := appendRequest(nil, got); !bytes.Equal(again, b) {
			t.Errorf("%+v: comes out as %+v", r, got)
		}
		for n := range b {
			if _, err := parseRequest(b[:n]); dynamo.KindOf(orNil(err)) != dynamo.KindInvalid {
				t.Fatalf("cut to %d of %d bytes: got %v, want an invalid request", n, len(b), err)
			}
		}
	}
	long := dynamo.Request{Model: strings.Repeat("m", maxStringBytes+1)}
	restricted := func(value string) []byte {
		return appendRequest(nil, &dynamo.Request{Guided: dynamo.Guided{Kind: dynamo.GuidedRegex, Value: value}})
	}
	if _, err := parseRequest(restricted(strings.Repeat("r", engine.MaxGuidedBytes))); err != nil {
		t.Errorf("the longest restriction: %v", err)
	}
	strange := restricted("r")
	strange[len(strange)-len("\x00\x05regex\x01r\x00")] = 0x80
	for name, b := range map[string][]byte{
		"format": {2, 0}, "cut hints": append(appendRequest(nil, &dynamo.Request{})[:1:1], append([]byte{flagHints}, append(appendRequest(nil, &dynamo.Request{})[2:], 2, 0x80, 0x80)...)...), "long name": appendRequest(nil, &long), "more": append(appendRequest(nil, &dynamo.Request{}), 0),
		"long restriction": restricted(strings.Repeat("r", engine.MaxGuidedBytes+1)), "flags of the restriction": strange,
	} {
		if _, err := parseRequest(b); dynamo.KindOf(orNil(err)) != dynamo.KindInvalid {
			t.Errorf("%s: got %v, want an invalid request", name, err)
		}
	}
}

// TestHints wants a worker told what of the routing concerns it, and nothing else of
// it; what a later version adds to the hints is passed over.
func TestHints(t *testing.T) {
	rank := 2
	for _, tt := range []struct{ sent, want *dynamo.Routing }{
		{nil, nil},
		{&dynamo.Routing{}, nil},
		{&dynamo.Routing{Tenant: "acme", Worker: 7, StrictPriority: 1, RequiredLabels: []string{"a=b"}}, nil},
		{&dynamo.Routing{Tenant: "acme", Rank: &rank, PrefillRank: &rank}, &dynamo.Routing{Rank: &rank}},
		{&dynamo.Routing{ExpectedOutput: math.MaxInt}, &dynamo.Routing{ExpectedOutput: math.MaxInt32}},
		{&dynamo.Routing{ExpectedOutput: -4, Session: "s"}, &dynamo.Routing{Session: "s"}},
	} {
		got, err := parseRequest(appendRequest(nil, &dynamo.Request{Tokens: tokens(1), Routing: tt.sent}))
		if err != nil || !reflect.DeepEqual(got.Routing, tt.want) {
			t.Errorf("%+v: got %+v, %v, want %+v", tt.sent, got.Routing, err, tt.want)
		}
	}
	later := appendRequest(nil, &dynamo.Request{Routing: &dynamo.Routing{Session: "s"}})
	hints := []byte{0, 0, 1, 's'}
	later = append(bytes.TrimSuffix(later, append([]byte{4}, hints...)), append(append([]byte{7}, hints...), 1, 2, 3)...)
	if got, err := parseRequest(later); err != nil || got.Routing.Session != "s" {
		t.Errorf("hints of a later version: got %+v, %v", got, err)
	}
}

// orNil lets a missing error be asked for its kind.
func orNil(err error) error {
	if err == nil {
		return &dynamo.Error{Kind: 255}
	}
	return err
}

// logprobs makes n entries with k alternatives; the first is a NaN of its own.
func logprobs(n, k int) []dynamo.TokenLogprob {
	out := make([]dynamo.TokenLogprob, n)
	for i := range out {
		out[i] = dynamo.TokenLogprob{ID: dynamo.TokenID(i * 1009), Logprob: -float32(i)}
		for j := range k {
			out[i].Top = append(out[i].Top, dynamo.TopLogprob{ID: dynamo.TokenID(i + j), Logprob: -float32(j) / 7})
		}
	}
	if n > 0 {
		out[0].Logprob = math.Float32frombits(0x7fc54321)
	}
	return out
}

func tokens(n int) []dynamo.TokenID {
	out := make([]dynamo.TokenID, n)
	for i := range out {
		out[i] = dynamo.TokenID(i * 1009)
	}
	return out
}

// TestLongChunks cuts chunks of every shape, and puts them together again.
func TestLongChunks(t *testing.T) {
	end := dynamo.Usage{Prompt: 1, Cached: 2, Completion: 3}
	for _, c := range []struct {
		name  string
		chunk dynamo.Chunk
		one   bool // it stays one chunk
	}{
		{"empty", dynamo.Chunk{}, true},
		{"one token", dynamo.Chunk{Tokens: tokens(1)}, true},
		{"end alone", dynamo.Chunk{Finish: dynamo.FinishStop, Usage: end}, true},
		{"tokens", dynamo.Chunk{Tokens: tokens(50_000), Choice: 7, Finish: dynamo.FinishLength, Usage: end}, false},
		{"logprobs", dynamo.Chunk{Tokens: tokens(3000), Logprobs: logprobs(3000, 20), Cached: 5, Finish: dynamo.FinishStop, Usage: end}, false},
		{"prompt logprobs", dynamo.Chunk{PromptLogprobs: logprobs(20_000, 5), Cached: 9, Tokens: tokens(2), Logprobs: logprobs(2, 5)}, true},
		{"both", dynamo.Chunk{PromptLogprobs: logprobs(5000, 0), Tokens: tokens(5000), Logprobs: logprobs(5000, 0), Finish: dynamo.FinishLength, Usage: end}, false},
		{"many alternatives", dynamo.Chunk{PromptLogprobs: logprobs(3, 10_000), Tokens: tokens(3), Logprobs: logprobs(3, 10_000)}, false},
		{"text", dynamo.Chunk{Text: strings.Repeat("text", 20_000), Finish: dynamo.FinishStop, Usage: end}, true},
		{"logprobs of other tokens", dynamo.Chunk{Tokens: tokens(1), Logprobs: logprobs(3, 1)}, true},
	} {
		got := travel(t, &c.chunk, 20_000, 10_000)
		if one := len(got) == 1; one != c.one {
			t.Errorf("%s: %d chunks", c.name, len(got))
		}
		var sum dynamo.Chunk
		for i := range got {
			g := &got[i]
			last := i == len(got)-1
			if g.Choice != c.chunk.Choice || !last && (g.Finish != 0 || len(g.Tokens) == 0 && i > 0) || i > 0 && len(g.PromptLogprobs)+g.Cached > 0 {
				t.Errorf("%s: chunk %d of %d is %+v", c.name, i, len(got), g)
			}
			sum.Tokens, sum.Logprobs, sum.PromptLogprobs = append(sum.Tokens, g.Tokens...), append(sum.Logprobs, g.Logprobs...), append(sum.PromptLogprobs, g.PromptLogprobs...)
			sum.Text, sum.Cached, sum.Choice = sum.Text+g.Text, sum.Cached+g.Cached, g.Choice
			sum.Finish, sum.Usage = g.Finish, g.Usage
		}
		if got, want := fmt.Sprintf("%x", bits(&sum)), fmt.Sprintf("%x", bits(&c.chunk)); got != want {
			t.Errorf("%s: it comes out changed", c.name)
		}
	}
}

// bits is a form of c in which equal means equal to the bit.
func bits(c *dynamo.Chunk) []byte {
	b := fmt.Appendf(nil, "%d %q %d %v %+v ", c.Choice, c.Text, c.Cached, c.Finish, c.Usage)
	return appendEntries(appendEntries(appendIDs(b, c.Tokens), c.Logprobs), c.PromptLogprobs)
}

func TestLoadTravels(t *testing.T) {
	var e chunkEncoder
	d := chunkDecoder{prompt: 1}
	want := engine.Load{Running: 3, Waiting: 2, MaxRunning: 8, KVBlocks: 100, KVUsed: 7, Steps: 1 << 40}
	e.setLoad(want)
	for i := range 2 {
		e.begin(dynamo.Chunk{Tokens: tokens(1)})
		b, _ := e.next()
		if _, err := d.decode(b); err != nil {
			t.Fatal(err)
		}
		if told := i == 0; d.hasLoad != told || told && d.load != want {
			t.Errorf("chunk %d: got %t, %+v", i, d.hasLoad, d.load)
		}
	}
}

// TestChunkRefused decodes what no encoder writes.
func TestChunkRefused(t *testing.T) {
	opening := func(n, left int) []byte {
		b := appendEntries([]byte{chunkFormat | hasOpening, 0}, logprobs(n, 0))
		return append(b, byte(left), 0)
	}
	for name, messages := range map[string][][]byte{
		"nothing":                 {{}},
		"other format":            {{0xc0, 0}},
		"a handover that is cut":  {{handoverFormat, 0, 9, 'a'}},
		"a handover too large":    {append(binary.AppendUvarint([]byte{handoverFormat, 0}, engine.MaxHandoverBytes+1), make([]byte, engine.MaxHandoverBytes+1)...)},
		"opening and handover":    {{handoverFormat | hasOpening, 0, 0, 3, 0, 0}},
		"bytes after the end":     {{chunkFormat, 0, 0}},
		"cut short":               {{chunkFormat, 2, 5}},
		"huge count":              {{chunkFormat, 0xff, 0xff, 0xff, 0xff, 0x0f}},
		"id above 32 bits":        {{chunkFormat, 1, 0xff, 0xff, 0xff, 0xff, 0x1f}},
		"end for no reason":       {{chunkFormat | hasEnd, 0, 0, 0, 0, 0}},
		"too many prompt tokens":  {opening(6, 0)},
		"too many to follow":      {opening(3, 3)},
		"follow none":             {opening(0, 3)},
		"counted wrong":           {opening(1, 3), opening(1, 1)},
		"opening interrupted":     {opening(1, 3), {chunkFormat, 1, 1}},
		"tokens in the opening":   {append(opening(1, 3)[:len(opening(1, 3))-1], 1, 1)},
		"too many alternatives":   {append([]byte{chunkFormat | hasLogprobs, 0}, appendEntries(nil, logprobs(1, 3))...)},
		"a load that is none":     {{chunkFormat | hasLoad, 200, 0}},
		"openings without end":    {opening(3, 0), opening(3, 0)},
		"a text that is cut":      {{chunkFormat | hasText, 0, 9, 'a'}},
		"logprobs that are cut":   {{chunkFormat | hasLogprobs, 0, 1, 1, 0, 0, 0}},
		"usage that is cut":       {{chunkFormat | hasEnd, 0, 1, 0}},
		"a number without an end": {{chunkFormat | hasChoice, 0xff, 0xff}},
	} {
		d := chunkDecoder{prompt: 5, top: 2}
		var err error
		for _, b := range messages {
			if err == nil {
				_, err = d.decode(b)
			}
		}
		if dynamo.KindOf(orNil(err)) != dynamo.KindCorrupt {
			t.Errorf("%s: got %v, want a corrupt answer", name, err)
		}
	}
}

// TestChunkAllocations checks that chunks cost none once the buffers have grown.
func TestChunkAllocations(t *testing.T) {
	chunk := dynamo.Chunk{Tokens: tokens(3), Logprobs: logprobs(3, 5)}
	var e chunkEncoder
	d := chunkDecoder{prompt: 1, top: 5}
	n := testing.AllocsPerRun(100, func() {
		e.setLoad(engine.Load{Running: 1})
		e.begin(chunk)
		b, _ := e.next()
		if _, err := d.decode(b); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations per chunk, want none", n)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(appendRequest(nil, &dynamo.Request{}))
	f.Add(appendRequest(nil, &dynamo.Request{ID: "a", Tokens: tokens(3), Resume: tokens(2), StopTokens: tokens(1), Sampling: dynamo.Sampling{LogitBias: []dynamo.LogitBias{{ID: 1, Bias: 2}}}}))
	f.Add(appendRequest(nil, &dynamo.Request{Tokens: tokens(1), Guided: dynamo.Guided{Kind: dynamo.GuidedChoice, Value: `["a","b"]`, Whitespace: " ", Compact: true}}))
	f.Add(appendRequest(nil, &dynamo.Request{Tokens: tokens(2), Resume: tokens(1), Prefill: true, Handover: []byte("there")}))
	f.Add(appendRequest(nil, &dynamo.Request{Tokens: tokens(2), Routing: &dynamo.Routing{Rank: new(int), ExpectedOutput: 300, Session: "s"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := bounded1(t, len(b), func() (*dynamo.Request, error) { return parseRequest(b) })
		if err != nil {
			if dynamo.KindOf(err) != dynamo.KindInvalid {
				t.Fatalf("got an error of kind %v", dynamo.KindOf(err))
			}
			return
		}
		once := appendRequest(nil, r)
		again, err := parseRequest(once)
		if err != nil || !bytes.Equal(appendRequest(nil, again), once) {
			t.Fatalf("no round trip: %v", err)
		}
	})
}

func FuzzChunk(f *testing.F) {
	var e chunkEncoder
	e.setLoad(engine.Load{Running: 1})
	for _, c := range []dynamo.Chunk{
		{Tokens: tokens(3), Choice: 2}, {Tokens: tokens(2), Logprobs: logprobs(2, 2), Finish: dynamo.FinishStop},
		{PromptLogprobs: logprobs(3, 1), Cached: 4}, {Text: "text"},
		{Tokens: tokens(1), Cached: 64, Handover: []byte(`{"tokens":9}`)},
	} {
		e.begin(c)
		b, _ := e.next()
		f.Add(bytes.Clone(b), []byte{})
	}
	f.Add([]byte{chunkFormat | hasOpening, 0, 1, 1, 0, 0, 0, 0, 0, 2, 0}, []byte{chunkFormat | hasOpening, 0, 2, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		d := chunkDecoder{prompt: 10, top: 4}
		for _, b := range [][]byte{first, second} {
			whole, err := bounded1(t, len(b), func() (bool, error) { return d.decode(b) })
			if err != nil {
				if dynamo.KindOf(err) != dynamo.KindCorrupt {
					t.Fatalf("got an error of kind %v", dynamo.KindOf(err))
				}
				return
			}
			if !whole {
				continue
			}
			c := clone(&d.chunk)
			if got := travel(t, &c, 10, 4); len(got) == 1 && !bytes.Equal(bits(&got[0]), bits(&c)) {
				t.Fatalf("no round trip: %+v, %+v", got[0], c)
			}
		}
	})
}

// bounded1 checks that f allocates no more than in proportion to n.
func bounded1[T any](t *testing.T, n int, f func() (T, error)) (T, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	v, err := f()
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > uint64(64*n)+1<<16 {
		t.Fatalf("%d bytes set aside for a message of %d", grown, n)
	}
	return v, err
}

func BenchmarkCodec(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	r := dynamo.Request{ID: "request", Model: "model"}
	for range 1000 {
		r.Tokens = append(r.Tokens, dynamo.TokenID(random.IntN(50_000)))
	}
	b.Run("request of 1000 tokens", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parseRequest(appendRequest(nil, &r)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("chunk of a token", func(b *testing.B) {
		b.ReportAllocs()
		var e chunkEncoder
		d := chunkDecoder{prompt: 1}
		for b.Loop() {
			e.begin(dynamo.Chunk{Tokens: r.Tokens[:1]})
			m, _ := e.next()
			if _, err := d.decode(m); err != nil {
				b.Fatal(err)
			}
		}
	})
}
