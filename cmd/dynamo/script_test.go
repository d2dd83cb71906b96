package main

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dynamo-go/dynamo/internal/fixture"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"dynamo": main})
}

func TestScripts(t *testing.T) {
	hub := fakeHub(t)
	testscript.Run(t, testscript.Params{
		Dir:      "testdata/script",
		Deadline: time.Now().Add(8 * time.Minute),
		Setup: func(e *testscript.Env) error {
			for name, dir := range map[string]string{"XDG_CONFIG_HOME": "xdg/config", "XDG_STATE_HOME": "xdg/state", "XDG_CACHE_HOME": "xdg/cache", "XDG_RUNTIME_DIR": "run"} {
				e.Setenv(name, filepath.Join(e.WorkDir, dir))
			}
			e.Setenv("HUB", hub)
			e.Setenv("DYN_PYTHON", "/nowhere/python3") // no script reaches a network
			// llama is a model with weights, random ones.
			llama := filepath.Join(e.WorkDir, "llama")
			if err := fixture.TinyModel(llama); err != nil {
				return err
			}
			if err := fixture.TinyLlama(llama, fixture.Llama{Vocab: 320, Context: 4096, Layers: 2, EOS: 1}); err != nil {
				return err
			}
			return fixture.TinyModel(filepath.Join(e.WorkDir, "tiny"))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitfile": waitFile, "retry": retry, "objects": objects, "http": request, "occupy": occupy, "ownonly": ownOnly, "sigterm": sigterm, "hold": hold, "ready": ready, "eventually": eventually, "closed": closed, "url": urlOf, "address": addressOf,
		},
	})
}

// waitFile FILE waits until a background command has written it.
func waitFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfile FILE")
	}
	for range 2400 {
		if info, err := os.Stat(ts.MkAbs(args[0])); err == nil && info.Size() > 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("%s was not written within two minutes", args[0])
}

// request ADDRFILE METHOD PATH [BODYFILE [HEADER: VALUE]] asks a server and
// prints status and body to stdout. With ! it wants a status of 400 and above.
func request(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: http ADDRFILE METHOD PATH [BODYFILE [HEADER]]")
	}
	addr := strings.TrimSpace(ts.ReadFile(args[0]))
	body := ""
	if len(args) > 3 {
		body = ts.ReadFile(args[3])
	}
	req, err := http.NewRequest(args[1], "http://"+addr+args[2], strings.NewReader(body))
	ts.Check(err)
	req.Header.Set("Content-Type", "application/json")
	if len(args) > 4 {
		name, value, _ := strings.Cut(args[4], ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%d\n%s\n", resp.StatusCode, b)
	if neg != (resp.StatusCode >= 400) {
		ts.Fatalf("status %d: %s", resp.StatusCode, b)
	}
}

// ready ADDRFILE waits until a frontend serves a model.
func ready(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: ready ADDRFILE")
	}
	eventually(ts, false, []string{args[0], "GET", "/ready", ""})
}

// eventually ADDRFILE METHOD PATH REGEXP asks a server until it answers with
// success and a body that matches.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: eventually ADDRFILE METHOD PATH REGEXP")
	}
	want, err := regexp.Compile("(?s)" + args[3])
	ts.Check(err)
	url := "http://" + strings.TrimSpace(ts.ReadFile(args[0])) + args[2]
	var last string
	for range 2400 {
		req, err := http.NewRequest(args[1], url, nil)
		ts.Check(err)
		if resp, err := http.DefaultClient.Do(req); err != nil {
			last = err.Error()
		} else {
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			ts.Check(err)
			if last = fmt.Sprintf("%d %s", resp.StatusCode, b); resp.StatusCode < 400 && want.Match(b) {
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("%s %s does not come to match %q; it last said: %s", args[1], url, args[3], last)
}

// sigterm [ADDRFILE] sends SIGTERM to the background command with that
// --addr-file, by default to the last one.
func sigterm(ts *testscript.TestScript, _ bool, args []string) {
	all := ts.BackgroundCmds()
	if len(all) == 0 {
		ts.Fatalf("nothing runs in the background")
	}
	last := all[len(all)-1]
	for _, c := range all {
		if len(args) == 1 && slices.Contains(c.Args, args[0]) {
			last = c
		}
	}
	ts.Check(last.Process.Signal(syscall.SIGTERM))
}

// hold ADDRFILE BODYFILE begins a streamed chat and leaves it open until the
// script ends.
func hold(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: hold ADDRFILE BODYFILE")
	}
	resp, err := http.Post("http://"+strings.TrimSpace(ts.ReadFile(args[0]))+"/v1/chat/completions", "application/json", strings.NewReader(ts.ReadFile(args[1])))
	ts.Check(err)
	ts.Defer(func() { resp.Body.Close() })
	_, err = io.ReadFull(resp.Body, make([]byte, 1))
	ts.Check(err)
}

// urlOf ADDRFILE VAR sets VAR to the base address of a server.
func urlOf(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: url ADDRFILE VAR")
	}
	ts.Setenv(args[1], "http://"+strings.TrimSpace(ts.ReadFile(args[0])))
}

// addressOf ADDRFILE VAR sets VAR to HOST:PORT of a server.
func addressOf(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: address ADDRFILE VAR")
	}
	ts.Setenv(args[1], strings.TrimSpace(ts.ReadFile(args[0])))
}

// closed ADDRFILE waits until nobody accepts connections there.
func closed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: closed ADDRFILE")
	}
	addr := strings.TrimSpace(ts.ReadFile(args[0]))
	for range 2400 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		c.Close()
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("%s still accepts", addr)
}

// occupy VAR takes a port of 127.0.0.1 for the rest of the script and sets VAR
// to it.
func occupy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: occupy VAR")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Setenv(args[0], port)
}

// ownOnly FILE wants a file that nobody else can read.
func ownOnly(ts *testscript.TestScript, neg bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if info.Mode().Perm() != 0o600 {
		ts.Fatalf("%s has mode %v", args[0], info.Mode())
	}
}

// fakeHub is a Hugging Face hub with the tiny model as org/tiny.
func fakeHub(t *testing.T) string {
	const commit = "0123456789abcdef0123456789abcdef01234567"
	files := fixture.TinyFiles()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/models/org/tiny/revision/main", func(w http.ResponseWriter, _ *http.Request) {
		var siblings []map[string]any
		for name, b := range files {
			sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(b)), b...))
			siblings = append(siblings, map[string]any{"rfilename": name, "size": len(b), "blobId": hex.EncodeToString(sum[:])})
		}
		if err := json.MarshalWrite(w, map[string]any{"sha": commit, "siblings": siblings}); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("GET /org/tiny/resolve/"+commit+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		if _, err := w.Write(files[r.PathValue("name")]); err != nil {
			t.Error(err)
		}
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}
