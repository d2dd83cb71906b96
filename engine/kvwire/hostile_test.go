package kvwire_test

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/kvwire"
	"github.com/dynamo-go/dynamo/internal/testnet"
)

// greeting is a peer's first 64 bytes, and ready its first command as a socket of
// that type.
func greeting() []byte {
	b := make([]byte, 64)
	b[0], b[9], b[10], b[11] = 0xff, 0x7f, 3, 1
	copy(b[12:], "NULL")
	return b
}

func ready(socket string) []byte {
	body := "\x05READY\x0bSocket-Type\x00\x00\x00" + string(rune(len(socket))) + socket
	return append([]byte{4, byte(len(body))}, body...)
}

// frames appends a message.
func frames(b []byte, parts ...string) []byte {
	for i, p := range parts {
		flags := byte(1)
		if i == len(parts)-1 {
			flags = 0
		}
		b = append(binary.BigEndian.AppendUint64(append(b, flags|2), uint64(len(p))), p...)
	}
	return b
}

func number(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

// TestHostilePeer wants every malformed peer to be left, with a reason, and what
// is only strange to be passed over.
func TestHostilePeer(t *testing.T) {
	hello := append(greeting(), ready("PUB")...)
	with := func(b ...byte) []byte { return append(append([]byte{}, hello...), b...) }
	change := func(i int, v byte) []byte { b := append([]byte{}, hello...); b[i] = v; return b }
	good := string(batchOf([]any{"AllBlocksCleared"}))
	for name, c := range map[string]struct {
		say  []byte
		want string // of the reason; empty if the connection stays
	}{
		"http":               {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n" + strings.Repeat("x", 64)), "ZMTP"},
		"version 2":          {change(10, 2), "ZMTP"},
		"CURVE":              {change(12, 'C'), "NULL"},
		"silence":            {hello[:40], "timeout"},
		"error command":      {append(greeting(), "\x04\x0a\x05ERROR\x03no!"...), "no!"},
		"message first":      {append(greeting(), "\x00\x01x"...), "ready"},
		"other command":      {append(greeting(), "\x04\x05\x04PING"...), "ready"},
		"cut properties":     {append(greeting(), "\x04\x0b\x05READY\x0bSock"...), "malformed"},
		"no type":            {append(greeting(), "\x04\x06\x05READY"...), "type"},
		"router":             {append(greeting(), ready("ROUTER")...), "exchanged"},
		"huge frame":         {with(2, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), "malformed"},
		"huge command":       {with(6, 0, 0, 0, 0, 0, 0x10, 0, 0), "malformed"},
		"reserved flags":     {with(0x80, 0), "malformed"},
		"many frames":        {with(1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0), "frames"},
		"command within":     {with(1, 0, 4, 5, 4, 'P', 'I', 'N', 'G'), "within"},
		"cut command":        {with(4, 2, 9, 'X'), "malformed command"},
		"late error":         {with(append([]byte{4, 8}, "\x05ERROR\x01x"...)...), "error"},
		"one frame":          {frames(with(), "kv"), ""},
		"short number":       {frames(with(), "kv", "123", good), ""},
		"another topic":      {frames(with(), "load", number(0), good), ""},
		"ping, other":        {with(append([]byte{4, 7}, "\x04PING\x00\x00\x04\x05\x04WHAT"...)...), ""},
		"payload of no sort": {frames(with(), "kv", number(0), "\xc1"), ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := testnet.New()
			l, err := n.Host("engine").Listen(":1")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = conn.Write(c.say) // the peer may have left
				}
			}()
			reasons := make(chan error, 1)
			config := kvwire.DefaultConfig()
			config.Dial = n.Host("worker").Dial
			config.Changed = func(up bool, err error) {
				if !up && len(reasons) == 0 {
					reasons <- err
				}
			}
			w := &world{t: t, n: n, config: config, src: kvwire.Source{Endpoint: "tcp://engine:1", Topic: "kv"}}
			w.subscribe()
			time.Sleep(8 * time.Second)
			synctest.Wait()
			var reason error
			if len(reasons) > 0 {
				reason = <-reasons
			}
			switch {
			case c.want == "" && reason != nil, c.want != "" && (reason == nil || !strings.Contains(reason.Error(), c.want)):
				t.Errorf("%s: left because of %v, want %q", name, reason, c.want)
			case reason != nil && dynamo.KindOf(reason) != dynamo.KindUnavailable && dynamo.KindOf(reason) != dynamo.KindCorrupt:
				t.Errorf("%s: left with an error of kind %v", name, dynamo.KindOf(reason))
			}
			w.cancel(nil)
			<-w.done
			n.Kill("engine")
		})
	}
}

// TestHostileReplay wants a replay socket that answers nonsense to cost the past,
// not the present.
func TestHostileReplay(t *testing.T) {
	hello := append(greeting(), ready("ROUTER")...)
	good := string(batchOf([]any{"AllBlocksCleared"}))
	for name, say := range map[string][]byte{
		"nothing":      nil,
		"one frame":    frames(nil, ""),
		"five frames":  frames(nil, "", "kv", number(0), good, "x"),
		"no delimiter": frames(nil, "x", number(0), good),
		"short number": frames(nil, "", "123", good),
		"garbage":      []byte("\x80\x80"),
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, kvwire.PublisherConfig{})
			l, err := w.n.Host("engine").Listen(":9")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func(c net.Conn) {
						_, _ = c.Write(append(append([]byte{}, hello...), say...)) // the peer may have left
					}(c)
				}
			}()
			w.src.ReplayEndpoint = "tcp://engine:9"
			w.subscribe()
			time.Sleep(20 * time.Second)
			w.want("reset joined partial")
			w.publish(2)
			w.want("reset joined", "0:1-1:2")
			if t.Failed() {
				t.Log(name)
			}
			w.cancel(nil)
			<-w.done
			w.kill()
		})
	}
}

// FuzzPeer wants any bytes of a peer to be survived, and nothing to be delivered
// but in order.
func FuzzPeer(f *testing.F) {
	good := string(batchOf([]any{"AllBlocksCleared"}))
	f.Add(append(append(greeting(), ready("PUB")...), frames(frames(nil, "kv", number(0), good), "kv", number(3), good)...))
	f.Add(append(append(greeting(), ready("PUB")...), "\x04\x07\x04PING\x00\x00"...))
	f.Fuzz(func(t *testing.T, say []byte) {
		synctest.Test(t, func(t *testing.T) {
			n := testnet.New()
			l, err := n.Host("engine").Listen(":1")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write(say) // the peer may have left
				_ = c.Close()
			}()
			config := kvwire.DefaultConfig()
			config.Dial = n.Host("worker").Dial
			w := &world{t: t, n: n, config: config, src: kvwire.Source{Endpoint: "tcp://engine:1", Topic: "kv"}}
			w.subscribe()
			time.Sleep(100 * time.Millisecond)
			w.cancel(nil)
			<-w.done
			n.Kill("engine")
		})
	})
}
