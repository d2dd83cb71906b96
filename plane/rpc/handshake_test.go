package rpc_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo/plane/rpc"
)

// TestRefusals: both sides say what is wrong between them, and the client tries
// on, slowly.
func TestRefusals(t *testing.T) {
	keys := certificates(t)
	for _, c := range []struct {
		name   string
		o      options
		wants  []string
		server string
	}{
		{"key", options{client: func(c *rpc.Config) { c.Key = []byte("the key of another cluster") }}, []string{"cluster keys differ", "--cluster-key-file"}, "cluster keys differ"},
		{"worker", options{peer: func(c *rpc.PeerConfig) { c.Worker = 8 }}, []string{"worker 0000000000000007 (epoch 3) answers here", "worker 0000000000000008 (epoch 3)"}, "0000000000000008"},
		{"epoch", options{peer: func(c *rpc.PeerConfig) { c.Epoch = 2 }}, []string{"(epoch 3)", "(epoch 2)"}, "(epoch 2)"},
		{"tls client", options{client: func(c *rpc.Config) { c.TLS = &tls.Config{InsecureSkipVerify: true} }}, []string{"speaks no TLS", "give both sides --tls-"}, "neither"},
		{"tls server", options{server: func(c *rpc.ServerConfig) { c.TLS = keys.server }}, []string{"TLS"}, "TLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c.o.unwelcome = true
				p := connect(t, nil, c.o)
				time.Sleep(time.Minute)
				got := p.changes()
				if len(got) != 1 {
					t.Fatalf("Changed was told %d times, want once: %q", len(got), got)
				}
				for _, want := range c.wants {
					if !strings.Contains(got[0], want) {
						t.Errorf("the client says %q, want %q in it", got[0], want)
					}
				}
				log := p.log.String()
				if !strings.Contains(log, c.server) {
					t.Errorf("the server says %q, want %q in it", log, c.server)
				}
				if n := strings.Count(log, "refused"); n < 5 || n > 40 {
					t.Errorf("%d attempts in a minute", n)
				}
			})
		})
	}
}

// raw connects to the server without the client's code.
func (p *pair) raw() net.Conn {
	p.t.Helper()
	c, err := p.net.Host("front").Dial(p.t.Context(), "tcp", "work:7000")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestStrangers(t *testing.T) {
	hello := append([]byte("dynamo\r\n\x00\x01\x00\x40"), make([]byte, 64)...)
	future := append([]byte("dynamo\r\n\x01\x02\x00\x03"), "new"...)
	for _, c := range []struct {
		name   string
		bytes  []byte
		answer string // a part of it
		log    string
		after  time.Duration // until the server closes
	}{
		{"nothing", nil, "", "", 5 * time.Second},
		{"half a hello", hello[:20], "", "", 5 * time.Second},
		{"hello, no proof", hello, "dynamo\r\n\x00\x01\x00\x00\x00\x20", "", 5 * time.Second},
		{"false proof", append(bytes.Clone(hello), make([]byte, 32)...), "cluster keys differ", "cluster keys differ", 0},
		{"other version", future, "version 1 of the protocol, the client version 258", "version 258", 0},
		{"http", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "", "another protocol", 0},
		{"long hello", []byte("dynamo\r\n\x00\x01\xff\xff"), "", "65535", 0},
		{"garbage", bytes.Repeat([]byte{0xff}, 1000), "", "another protocol", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := connect(t, nil, options{})
				nc := p.raw()
				began := time.Now()
				if _, err := nc.Write(c.bytes); err != nil {
					t.Fatal(err)
				}
				got, _ := io.ReadAll(nc) // the end is what counts
				if !bytes.Contains(got, []byte(c.answer)) || c.answer == "" && len(got) > 0 {
					t.Errorf("answer %q, want %q in it", got, c.answer)
				}
				elapsed(t, began, c.after, c.after+time.Millisecond)
				synctest.Wait()
				if !strings.Contains(p.log.String(), c.log) {
					t.Errorf("the server's log %q lacks %q", p.log, c.log)
				}
			})
		})
	}
}

// TestClientOfStrangers: a client of something else says what it found.
func TestClientOfStrangers(t *testing.T) {
	answer := func(version uint16, status byte, body string) string {
		b := binary.BigEndian.AppendUint16([]byte("dynamo\r\n"), version)
		b = binary.BigEndian.AppendUint16(append(b, status, 0), uint16(len(body)))
		return string(b) + body
	}
	nonce := strings.Repeat("n", 32)
	for _, c := range []struct{ name, says, want string }{
		{"http", "HTTP/1.1 400 Bad Request\r\n\r\n", "another protocol"},
		{"silence", "", "no answer within 3s"},
		{"close", "close", "closed within the handshake"},
		{"other version", answer(9, 0, "what nine says"), "server speaks version 9 of the protocol, the client version 1"},
		{"refusal", answer(1, 4, "too many"), "the server refuses: too many"},
		{"strange refusal", answer(1, 200, "\xff\xfe"), "the server refuses: ?"},
		{"long challenge", answer(1, 0, nonce+"x"), "bytes"},
		{"no proof", answer(1, 0, nonce) + answer(1, 0, strings.Repeat("w", 60)), "cannot prove"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := connect(t, nil, options{unwelcome: true, peer: func(c *rpc.PeerConfig) { c.Addresses = []string{"tcp://other:1"} }})
				l, err := p.net.Host("other").Listen("other:1")
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan struct{})
				go func() {
					defer close(done)
					for {
						nc, err := l.Accept()
						if err != nil {
							return
						}
						_, _ = io.ReadFull(nc, make([]byte, 76))
						if c.says == "close" {
							_ = nc.Close()
							continue
						}
						_, _ = io.WriteString(nc, c.says)
						_, _ = io.ReadFull(nc, make([]byte, 32))
						_ = nc.Close()
					}
				}()
				time.Sleep(10 * time.Second)
				p.stop()
				_ = l.Close()
				<-done
				said := strings.Join(p.changes(), "\n")
				if !strings.Contains(said, c.want) {
					t.Errorf("the client says %q, want %q in it", said, c.want)
				}
			})
		})
	}
}

// TestFlood connects thousands of times without a word while a peer comes.
func TestFlood(t *testing.T) {
	connections := 10_000
	if testing.Short() {
		connections = 2000
	}
	bubble(t, func(t *testing.T) {
		p := connect(t, map[string]rpc.Endpoint{"count": {Serve: count(1)}}, options{})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		goroutines := runtime.NumGoroutine()
		flood := make([]net.Conn, connections)
		for i := range flood {
			var err error
			if flood[i], err = p.net.Host("front").Dial(t.Context(), "tcp", "work:7000"); err != nil {
				t.Fatal(err)
			}
			if i%3 == 0 {
				_, _ = flood[i].Write([]byte("dynamo\r\n\x00")) // refused when it was dropped
			}
		}
		synctest.Wait()
		if n := runtime.NumGoroutine() - goroutines; n > 600 {
			t.Errorf("%d goroutines for %d silent connections", n, connections)
		}
		// The network in memory has no bytes for those that are closed.
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) + int64(after.StackInuse) - int64(before.HeapAlloc) - int64(before.StackInuse); grown > 32<<20 {
			t.Errorf("%d silent connections cost %d bytes", connections, grown)
		}
		began := time.Now()
		other := p.client.Peer(rpc.PeerConfig{Addresses: []string{"tcp://work:7000"}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p.running.Go(func() { _ = other.Run(ctx) })
		if err := other.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		elapsed(t, began, 0, time.Second)
		if got, err := all(open(t, p.peer, "count", "x")); len(got) != 1 || !errors.Is(err, io.EOF) {
			t.Fatal(got, err)
		}
		time.Sleep(6 * time.Second)
		if n := runtime.NumGoroutine() - goroutines; n > 20 {
			t.Errorf("%d goroutines are left of a flood", n)
		}
		for _, c := range flood {
			_ = c.Close()
		}
	})
}

// trust is a pair of TLS configurations that know each other.
type trust struct{ server, client *tls.Config }

func certificates(t *testing.T) trust {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC), DNSNames: []string{"work", "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	pairs := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	return trust{
		server: &tls.Config{Certificates: pairs, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert},
		client: &tls.Config{Certificates: pairs, RootCAs: pool},
	}
}

// TestSockets runs streams over real sockets, with and without TLS.
func TestSockets(t *testing.T) {
	keys := certificates(t)
	for _, c := range []struct {
		name, network string
		change        func(*rpc.ServerConfig, *rpc.Config)
	}{
		{"tcp", "tcp", nil},
		{"unix", "unix", nil},
		{"mutual tls", "tcp", func(s *rpc.ServerConfig, c *rpc.Config) { s.TLS, c.TLS = keys.server, keys.client }},
		{"unix beside tls", "unix", func(s *rpc.ServerConfig, c *rpc.Config) { s.TLS, c.TLS = keys.server, keys.client }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := real(t, c.network, map[string]rpc.Endpoint{"count": {Serve: count(1000)}, "mirror": {Serve: mirror}}, c.change)
			if got, err := all(open(t, p, "count", "0123456789")); len(got) != 1000 || !errors.Is(err, io.EOF) {
				t.Fatalf("%d messages, %v", len(got), err)
			}
			s := open(t, p, "mirror", "")
			big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			sent := make(chan error, 1)
			go func() { sent <- errors.Join(s.Send(big), s.CloseSend()) }()
			if got, err := s.Recv(); !bytes.Equal(got, big) {
				t.Fatalf("%d bytes of %d came back, %v", len(got), len(big), err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestMutualTLS: a client without a certificate is refused although it has the
// key.
func TestMutualTLS(t *testing.T) {
	keys := certificates(t)
	keys.client.Certificates = nil
	bubble(t, func(t *testing.T) {
		p := connect(t, nil, options{unwelcome: true, server: func(c *rpc.ServerConfig) { c.TLS = keys.server }, client: func(c *rpc.Config) { c.TLS = keys.client }})
		time.Sleep(10 * time.Second)
		if got := strings.Join(p.changes(), "\n"); strings.Contains(got, "true") || !strings.Contains(got, "certificate") {
			t.Errorf("the client says %q", got)
		}
		if log := p.log.String(); !strings.Contains(log, "certificate") {
			t.Errorf("the server says %q", log)
		}
	})
}

func TestConfig(t *testing.T) {
	if _, err := rpc.NewServer(rpc.ServerConfig{}); err == nil || !strings.Contains(err.Error(), "--cluster-key-file") || !strings.Contains(err.Error(), "--rpc-connections") {
		t.Errorf("an empty configuration: %v", err)
	}
	c := rpc.DefaultConfig()
	c.Key = testKey
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c.DeadAfter = c.PingEvery
	if _, err := rpc.NewClient(c); err == nil {
		t.Error("a peer could die before it is asked twice")
	}
}
