package frontend

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench/trace"
	"github.com/dynamo-go/dynamo/obs"
)

// recording serves with a recorder. end waits until the recorder has written
// everything, and returns the file.
func recording(t *testing.T, e *fake, change func(*RecorderConfig)) (c *client, end func() []byte) {
	t.Helper()
	rc := DefaultRecorderConfig()
	rc.Path = filepath.Join(t.TempDir(), "trace.jsonl")
	if change != nil {
		change(&rc)
	}
	r, err := NewRecorder(rc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(stop)
	c = serve(t, e, func(c *Config, _ *Model) { c.Recorder = r })
	return c, func() []byte {
		t.Helper()
		within(t, "the handlers to end", func() bool { return c.server.handling.Load() == 0 }) // an answer arrives before
		stop()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(rc.Path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

// within waits for something of the real world.
func within(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 20_000 {
		if done() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("waited for %s for 20 seconds", what)
}

func readTrace(t *testing.T, b []byte) []trace.Request {
	t.Helper()
	var all []trace.Request
	for q, err := range trace.Read(bytes.NewReader(b), trace.Options{Unsorted: true}) {
		if err != nil {
			t.Fatalf("%v in\n%s", err, b)
		}
		all = append(all, q)
	}
	return all
}

const secretPrompt = "the quick brown fox jumps over the lazy dog and never comes back to the farm"

func TestRecorder(t *testing.T) {
	e := &fake{answer: says("fine")}
	c, end := recording(t, e, nil)
	c.header = map[string][]string{"X-Session-Id": {"alice@example.org"}}
	ask := func(body string) { c.do("POST", "/v1/completions", body) }
	ask(`{"model":"org/m","prompt":"` + secretPrompt + `","max_tokens":3,"priority":2}`)
	ask(`{"model":"org/m","prompt":"` + secretPrompt + ` again and again","max_tokens":50,"stream":true}`)
	c.header = nil
	ask(`{"model":"org/m","prompt":["` + secretPrompt + `","short"],"max_tokens":50,"n":2}`)
	ask(`{"model":"org/m","prompt":"` + secretPrompt + `","max_tokens":50,"cache_salt":"other"}`)
	ask(`{"model":"nobody","prompt":"x"}`)
	e.before = func(context.Context, *dynamo.Request, int) error {
		return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "gone"}
	}
	ask(`{"model":"org/m","prompt":"x","max_tokens":50}`)
	file := end()
	got := readTrace(t, file)
	if len(got) != 6 {
		t.Fatalf("%d lines, want 6:\n%s", len(got), file)
	}
	n := len(secretPrompt)
	for i, w := range []trace.Request{
		{Input: n, Output: 3, Finish: "length", Priority: -2, Choices: 0},
		{Input: n + 16, Output: 5, Finish: "stop", Turn: 1},
		{Input: n, Output: 10, Finish: "stop", Choices: 2},
		{Input: 5, Output: 10, Finish: "stop", Choices: 2},
		{Input: n, Output: 5, Finish: "stop"},
		{Input: 1, Finish: "unavailable"},
	} {
		g := got[i]
		if g.Input != w.Input || g.Output != w.Output || g.Finish != w.Finish || g.Priority != w.Priority || g.Choices != w.Choices || g.Turn != w.Turn || g.Model != "org/m" || g.BlockSize != 16 || len(g.Hashes) != w.Input/16 || g.Total <= 0 {
			t.Errorf("line %d: got %+v, want %+v", i+1, g, w)
		}
		if i < 5 && (g.FirstToken <= 0 || g.FirstToken > g.Total) {
			t.Errorf("line %d: first token after %v of %v", i+1, g.FirstToken, g.Total)
		}
	}
	if shared := n / 16; !slices.Equal(got[0].Hashes, got[1].Hashes[:shared]) || !slices.Equal(got[0].Hashes, got[2].Hashes) {
		t.Error("prompts that begin alike have other hashes")
	}
	if got[0].Hashes[0] == got[4].Hashes[0] {
		t.Error("a prompt of another cache namespace has the same hashes")
	}
	if got[0].Session == "" || got[0].Session != got[1].Session || got[2].Session != "" {
		t.Errorf("the sessions are %q, %q, %q", got[0].Session, got[1].Session, got[2].Session)
	}
}

// TestRecorderSecrets looks for what must not be in the file: text, ids, and any
// hash that can be computed without the key.
func TestRecorderSecrets(t *testing.T) {
	for _, known := range []bool{false, true} {
		c, end := recording(t, &fake{answer: says("an answer that nobody may know")}, func(rc *RecorderConfig) {
			if known {
				rc.Key = []byte("a key of at least sixteen bytes")
			}
		})
		c.header = map[string][]string{"X-Session-Id": {"alice@example.org"}}
		c.do("POST", "/v1/completions", `{"model":"org/m","prompt":"`+secretPrompt+`","max_tokens":100,"user":"bob"}`)
		file := end()
		for i := 0; i+4 <= len(secretPrompt); i++ {
			if bytes.Contains(file, []byte(secretPrompt[i:i+4])) {
				t.Errorf("%q of the prompt is in the file", secretPrompt[i:i+4])
			}
		}
		for _, secret := range []string{"alice", "bob", "answer", "know", "farm", fmt.Sprint([]byte(secretPrompt[:4]))[1:12]} {
			if bytes.Contains(file, []byte(secret)) {
				t.Errorf("%q is in the file", secret)
			}
		}
		got := readTrace(t, file)
		unkeyed := map[uint64]bool{}
		for i := range len(secretPrompt) / 16 {
			var b []byte
			for _, c := range []byte(secretPrompt[i*16 : i*16+16]) {
				b = binary.LittleEndian.AppendUint32(b, uint32(c))
			}
			unkeyed[xxh3.HashSeed(b, 1337)], unkeyed[xxh3.Hash(b)] = true, true
		}
		for _, h := range got[0].Hashes {
			if unkeyed[h] {
				t.Errorf("hash %d can be computed without the key", h)
			}
		}
		// The same prompt under another random key has other hashes; under one key the
		// same.
		c, end = recording(t, &fake{answer: says("x")}, func(rc *RecorderConfig) {
			if known {
				rc.Key = []byte("a key of at least sixteen bytes")
			}
		})
		c.do("POST", "/v1/completions", `{"model":"org/m","prompt":"`+secretPrompt+`","max_tokens":100}`)
		again := readTrace(t, end())
		if equal := slices.Equal(again[0].Hashes, got[0].Hashes); equal != known {
			t.Errorf("with a known key %v: equal hashes %v", known, equal)
		}
	}
}

// TestRecorderRolls fills several files.
func TestRecorderRolls(t *testing.T) {
	rc := DefaultRecorderConfig()
	rc.Path = filepath.Join(t.TempDir(), "trace.jsonl")
	rc.RollBytes, rc.Files = minRecordRoll, 2
	if err := os.WriteFile(rc.Path, []byte(`{"timestamp": 1, "input_length": 77, "output_length": 1}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := NewRecorder(rc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	const lines = 3000
	for i := range lines {
		ids := make([]dynamo.TokenID, 160)
		ids[0] = dynamo.TokenID(i)
		r.offer(&recorded{request: trace.Request{Input: 160, Output: i, BlockSize: 16}, arrived: time.Now(), ids: ids})
		if len(r.queue) > maxRecordQueue/2 {
			within(t, "the recorder", func() bool { return len(r.queue) == 0 })
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(rc.Path + "*")
	if err != nil || len(names) > 4 || len(names) < 3 {
		t.Fatalf("%v files: %v", err, names)
	}
	last := 0
	for _, name := range append(names[1:], names[0]) { // the current one is the newest
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if zipped := strings.HasSuffix(name, ".gz"); zipped {
			if _, err := gzip.NewReader(bytes.NewReader(b)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		} else if int64(len(b)) > 2*rc.RollBytes {
			t.Errorf("%s has %d bytes", name, len(b))
		}
		for _, q := range readTrace(t, b) {
			if q.Output < last {
				t.Fatalf("%s: line %d after %d", name, q.Output, last)
			}
			last = q.Output
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, error %v", name, info.Mode(), err)
		}
	}
	if last != lines-1 {
		t.Errorf("the last line is %d, want %d", last, lines-1)
	}
}

// TestRecorderNeverBlocks offers more than anybody takes.
func TestRecorderNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rc := DefaultRecorderConfig()
		rc.Path = filepath.Join(t.TempDir(), "trace.jsonl")
		rc.Registry = obs.NewRegistry()
		r, err := NewRecorder(rc)
		if err != nil {
			t.Fatal(err)
		}
		huge := make([]dynamo.TokenID, maxRecordTokens+1)
		r.offer(&recorded{request: trace.Request{Input: len(huge), BlockSize: 16}, ids: huge})
		for range maxRecordQueue + 50 {
			r.offer(&recorded{request: trace.Request{Input: 16, BlockSize: 16}, arrived: time.Now(), ids: make([]dynamo.TokenID, 16)})
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		time.Sleep(5 * time.Second) // the file is written without anybody ending anything
		b, err := os.ReadFile(rc.Path)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(b, []byte("\n")); n != maxRecordQueue {
			t.Errorf("%d lines, want %d", n, maxRecordQueue)
		}
		if bytes.Contains(b, []byte(strconv.Itoa(len(huge)))) {
			t.Error("a prompt larger than all that may wait was taken")
		}
		stop()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		for outcome, want := range map[string]int{"written": maxRecordQueue, "crowded": 51, "failed": 0} {
			if line := `dynamo_frontend_recorded_requests_total{outcome="` + outcome + `"} ` + strconv.Itoa(want); !strings.Contains(scrape(rc.Registry), line+"\n") {
				t.Errorf("no %s in\n%s", line, scrape(rc.Registry))
			}
		}
		if r.waiting.Load() != 0 {
			t.Errorf("%d tokens are still counted as waiting", r.waiting.Load())
		}
	})
}

func TestRecorderConfig(t *testing.T) {
	rc := RecorderConfig{Key: []byte("short"), BlockSize: -1, Files: -1}
	err := rc.Validate()
	for _, flag := range []string{"--request-trace needs", "--request-trace-key-file", "--request-trace-block-size", "--request-trace-roll", "--request-trace-files"} {
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%v does not name %s", err, flag)
		}
	}
	rc = DefaultRecorderConfig()
	rc.Path = filepath.Join(t.TempDir(), "no", "such", "folder")
	if _, err := NewRecorder(rc); err == nil || !strings.Contains(err.Error(), "--request-trace") {
		t.Errorf("a folder that is not there: %v", err)
	}
}

func BenchmarkRecorder(b *testing.B) {
	rc := DefaultRecorderConfig()
	rc.Path = filepath.Join(b.TempDir(), "trace.jsonl")
	r, err := NewRecorder(rc)
	if err != nil {
		b.Fatal(err)
	}
	ids := make([]dynamo.TokenID, 7500)
	for b.Loop() {
		r.write(&recorded{request: trace.Request{Input: 7500, BlockSize: 16}, arrived: r.start, ids: ids})
	}
}

// scrape returns the metrics as text.
func scrape(r *obs.Registry) string {
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}
