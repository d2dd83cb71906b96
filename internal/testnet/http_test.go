package testnet_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo/internal/testnet"
)

// TestHTTP serves HTTP over TLS in a bubble: a stream with time between its
// parts, many requests, and a shutdown.
func TestHTTP(t *testing.T) {
	certificate := httptest.NewUnstartedServer(nil)
	certificate.StartTLS()
	defer certificate.Close()
	pair, roots := certificate.TLS.Certificates[0], certificate.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))) // certificates are not valid in 2000
		n := testnet.New()
		n.Delay("client", "server", 10*time.Millisecond)
		l, err := n.Host("server").Listen(":443")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			for range 3 {
				w.Write(body[:len(body)/2])
				w.(http.Flusher).Flush()
				time.Sleep(time.Second)
			}
		}), TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}}
		go s.ServeTLS(l, "", "")
		transport := &http.Transport{DialContext: n.Host("client").Dial, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"}, ForceAttemptHTTP2: false}
		c := &http.Client{Transport: transport}
		for range 3 {
			begin := time.Now()
			r, err := c.Post("https://server/", "", strings.NewReader(strings.Repeat("x", 200_000)))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r.Body)
			r.Body.Close()
			if d := time.Since(begin); len(b) != 300_000 || err != nil || d < 3*time.Second || d > 3100*time.Millisecond {
				t.Errorf("answer of %d bytes in %v, %v", len(b), d, err)
			}
		}
		transport.CloseIdleConnections()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := n.Connections(); got != 0 {
			t.Errorf("%d connections left", got)
		}
	})
}

// BenchmarkRoundTrip is one small message there and back.
func BenchmarkRoundTrip(b *testing.B) {
	n := testnet.New()
	l, err := n.Host("b").Listen(":0")
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		c, err := l.Accept()
		if err == nil {
			io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
		}
	}()
	var c net.Conn
	if c, err = n.Host("a").Dial(b.Context(), "tcp", "b:10000"); err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		c.Write(buf)
		io.ReadFull(c, buf)
	}
}
