// Command tiers serves an object store in memory for run.sh, which asks who its users
// are, as S3 does. While the file -fault is there it lies, or does not serve: the file says
// how (a s3server.Fault) and of which reads (every so many), as in "flipped 3". At /lies it
// says how often it lied so far.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dynamo-go/dynamo/internal/s3server"
)

const bucket = "kv-cache"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "tiers:", err)
		os.Exit(1)
	}
}

func run() error {
	addr := flag.String("addr-file", "", "file the bound address is written to")
	fault := flag.String("fault", "", "file that says how to lie")
	flag.Parse()
	s := s3server.New(bucket, s3server.Credentials{KeyID: "tour", Secret: "tour's secret", Region: "us-east-1"})
	l := liar{path: *fault}
	s.Inject(l.fault)
	mux := http.NewServeMux()
	mux.Handle("/", s)
	mux.HandleFunc("GET /lies", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, s.Lies()) // run.sh misses it
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := os.WriteFile(*addr, []byte(listener.Addr().String()), 0o600); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	h := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { _ = h.Close() })()
	if err := h.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// liar says which reads of objects are answered wrongly.
type liar struct {
	path string
	seen atomic.Int64
}

func (l *liar) fault(r *http.Request) s3server.Fault {
	b, err := os.ReadFile(l.path)
	if err != nil {
		return ""
	}
	text := strings.TrimSpace(string(b))
	at := strings.LastIndexByte(text, ' ')
	every := int64(0)
	if _, err := fmt.Sscan(text[at+1:], &every); err != nil || at < 0 || every < 1 {
		return ""
	}
	switch fault := s3server.Fault(text[:at]); fault {
	case s3server.Wait, s3server.Denied, s3server.Broken:
		return fault // of whatever is asked
	}
	if r.Method != http.MethodGet || l.seen.Add(1)%every != 0 {
		return ""
	}
	return s3server.Fault(text[:at])
}
