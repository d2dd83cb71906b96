package rpc

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/dynamo-go/dynamo"
)

// The layout is described in wire.go.
const (
	version = 1
	magic   = "dynamo\r\n"

	hashBytes      = sha256.Size
	helloHead      = 12
	helloBytes     = helloHead + 64
	answerHead     = 14
	challengeBytes = answerHead + hashBytes
	welcomeBytes   = answerHead + 8 + 8 + 4 + 4 + 4 + hashBytes
)

// The status of an answer.
const (
	statusOK = iota
	statusVersion
	statusKey
	statusIdentity
	statusCrowded
)

var statusCodes = [...]string{statusVersion: CodeVersion, statusKey: CodeKey, statusIdentity: CodeIdentity, statusCrowded: CodeCrowded}

// keys prove that their holder has the cluster key, one for each side, so that
// no proof can be sent back to the one who made it.
type keys struct {
	client, server []byte
}

func deriveKeys(cluster []byte) (k keys, err error) {
	for _, d := range []struct {
		to   *[]byte
		info string
	}{{&k.client, "dynamo rpc client"}, {&k.server, "dynamo rpc server"}} {
		if *d.to, err = hkdf.Key(sha256.New, cluster, nil, d.info, hashBytes); err != nil {
			return keys{}, fmt.Errorf("derive keys from the cluster key: %w", err)
		}
	}
	return k, nil
}

func prove(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		_, _ = h.Write(p) // never fails
	}
	return h.Sum(nil)
}

// identity is who answers, or is expected to.
type identity struct {
	worker dynamo.WorkerID
	epoch  uint64
}

// String names a worker in one of its lives.
func (i identity) String() string {
	return fmt.Sprintf("worker %s (epoch %d)", i.worker, i.epoch)
}

func refused(code, format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: code, Message: fmt.Sprintf(format, args...)}
}

const keysDiffer = "cluster keys differ: give both sides the same --cluster-key-file"

func versionsDiffer(server, client uint16) error {
	return refused(CodeVersion, "the server speaks version %d of the protocol, the client version %d: run the same release of dynamo on both", server, client)
}

// binding ties the proofs to the TLS session they travel in.
func binding(nc net.Conn) ([]byte, error) {
	t, ok := nc.(*tls.Conn)
	if !ok {
		return make([]byte, hashBytes), nil
	}
	state := t.ConnectionState()
	b, err := state.ExportKeyingMaterial("EXPORTER-dynamo-rpc", nil, hashBytes)
	if err != nil {
		return nil, fmt.Errorf("bind to the TLS session (TLS 1.3 can): %w", err)
	}
	return b, nil
}

// answer writes what a server says.
func answer(status byte, body []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte(magic), version)
	b = append(b, status, 0)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
}

// isUnix reports whether a connection cannot leave the host; such are not
// wrapped in TLS.
func isUnix(a net.Addr) bool { return a != nil && strings.HasPrefix(a.Network(), "unix") }

// greet lets a stranger prove itself, within handshakeTimeout. It returns the
// connection to go on with.
func (s *Server) greet(nc net.Conn) (net.Conn, terms, error) {
	if err := nc.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, terms{}, fmt.Errorf("bound the handshake: %w", err)
	}
	under := nc
	if s.cfg.TLS != nil && !isUnix(nc.LocalAddr()) {
		t := tls.Server(nc, s.cfg.TLS)
		if err := t.Handshake(); err != nil {
			dismiss(under)
			return nil, terms{}, fmt.Errorf("TLS handshake (a client without TLS fails here, give it --tls-ca): %w", err)
		}
		nc = t
	}
	peer, status, err := s.authenticate(nc)
	if err != nil {
		if status != statusOK {
			text := err.Error()
			_, _ = nc.Write(answer(status, []byte(text[:min(len(text), maxRefusalText)]))) // the refusal itself is reported
			dismiss(under)
		}
		return nil, terms{}, err
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return nil, terms{}, fmt.Errorf("end the handshake: %w", err)
	}
	return nc, peer, nil
}

// dismiss lets a stranger that was told why it is refused read that, for what is
// left of handshakeTimeout at most: a close with some of its bytes unread would
// reset the connection, and could take the answer away.
func dismiss(nc net.Conn) {
	if half, ok := nc.(halfCloser); ok && half.CloseWrite() == nil {
		_, _ = io.ReadFull(nc, make([]byte, maxHelloBytes)) // the end is what counts
	}
}

// readHello reads the hello of any version.
func readHello(r io.Reader) ([]byte, error) {
	hello := make([]byte, helloHead, helloBytes)
	if _, err := io.ReadFull(r, hello[:len(magic)]); err != nil {
		return nil, fmt.Errorf("read the client's hello: %w", err)
	}
	if string(hello[:len(magic)]) != magic {
		if hello[0] == 22 && hello[1] == 3 {
			return nil, refused(codeGarbage, "the client speaks TLS and this server does not: give both sides --tls-… or neither")
		}
		return nil, refused(codeGarbage, "a client that speaks another protocol: it began with %q", hello[:len(magic)])
	}
	if _, err := io.ReadFull(r, hello[len(magic):]); err != nil {
		return nil, fmt.Errorf("read the client's hello: %w", err)
	}
	rest := int(binary.BigEndian.Uint16(hello[10:]))
	if rest > maxHelloBytes {
		return nil, refused(codeGarbage, "a client whose hello has %d bytes", rest)
	}
	hello = append(hello, make([]byte, rest)...)
	if _, err := io.ReadFull(r, hello[helloHead:]); err != nil {
		return nil, fmt.Errorf("read the client's hello: %w", err)
	}
	return hello, nil
}

// authenticate is the server's side of the handshake. With a status, the client
// is told.
func (s *Server) authenticate(nc net.Conn) (peer terms, status byte, err error) {
	bound, err := binding(nc)
	if err != nil {
		return terms{}, statusOK, err
	}
	hello, err := readHello(nc)
	if err != nil {
		return terms{}, statusOK, err
	}
	if v := binary.BigEndian.Uint16(hello[8:]); v != version || len(hello) != helloBytes {
		return terms{}, statusVersion, versionsDiffer(version, v)
	}
	var nonce [hashBytes]byte
	rand.Read(nonce[:])
	challenge := answer(statusOK, nonce[:])
	if _, err := nc.Write(challenge); err != nil {
		return terms{}, statusOK, fmt.Errorf("challenge the client: %w", err)
	}
	proof := make([]byte, hashBytes)
	if _, err := io.ReadFull(nc, proof); err != nil {
		return terms{}, statusOK, fmt.Errorf("read the client's proof: %w", err)
	}
	if !hmac.Equal(proof, prove(s.keys.client, bound, hello, challenge)) {
		return terms{}, statusKey, refused(CodeKey, keysDiffer)
	}
	is := identity{s.cfg.Worker, s.cfg.Epoch}
	expects := identity{dynamo.WorkerID(binary.BigEndian.Uint64(hello[44:])), binary.BigEndian.Uint64(hello[52:])}
	if expects.worker != 0 && expects != is {
		return terms{}, statusIdentity, refused(CodeIdentity, "%s answers here, and the client expects %s", is, expects)
	}
	if err := s.full(); err != nil {
		return terms{}, statusCrowded, err
	}
	peer = terms{window: int(binary.BigEndian.Uint32(hello[60:])), message: int(binary.BigEndian.Uint32(hello[64:])), streams: s.cfg.MaxStreams}
	if err := peer.check(); err != nil {
		return terms{}, statusVersion, err
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(is.worker))
	b = binary.BigEndian.AppendUint64(b, is.epoch)
	for _, n := range []int{s.cfg.WindowBytes, s.cfg.MaxMessageBytes, s.cfg.MaxStreams} {
		b = binary.BigEndian.AppendUint32(b, uint32(n))
	}
	welcome := answer(statusOK, append(b, make([]byte, hashBytes)...))
	at := len(welcome) - hashBytes
	copy(welcome[at:], prove(s.keys.server, bound, hello, challenge, proof, welcome[:at]))
	if _, err := nc.Write(welcome); err != nil {
		return terms{}, statusOK, fmt.Errorf("welcome the client: %w", err)
	}
	return peer, statusOK, nil
}

// full says why the server takes no further connection.
func (s *Server) full() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closing {
		return refused(CodeCrowded, "the server is shutting down")
	}
	if len(s.mu.conns) >= maxPeers {
		return refused(CodeCrowded, "the server has %d connections, which is its limit", maxPeers)
	}
	return nil
}

func (t terms) check() error {
	if t.window < MinWindowBytes || t.window > MaxWindowBytes || t.message < 1 || t.message > MaxMessageBytes || t.streams < 1 || t.streams > MaxStreams {
		return refused(CodeVersion, "the peer announces impossible limits: window %d, message %d, streams %d", t.window, t.message, t.streams)
	}
	return nil
}

// introduce is the client's side of the handshake, with whoever answers.
func (c *Client) introduce(nc net.Conn, expects identity) (terms, error) {
	bound, err := binding(nc)
	if err != nil {
		return terms{}, err
	}
	hello := binary.BigEndian.AppendUint16([]byte(magic), version)
	hello = binary.BigEndian.AppendUint16(hello, helloBytes-helloHead)
	var nonce [hashBytes]byte
	rand.Read(nonce[:])
	hello = append(hello, nonce[:]...)
	hello = binary.BigEndian.AppendUint64(hello, uint64(expects.worker))
	hello = binary.BigEndian.AppendUint64(hello, expects.epoch)
	hello = binary.BigEndian.AppendUint32(hello, uint32(c.cfg.WindowBytes))
	hello = binary.BigEndian.AppendUint32(hello, uint32(c.cfg.MaxMessageBytes))
	hello = append(hello, make([]byte, 8)...)
	if err := send(nc, "hello", hello); err != nil {
		return terms{}, err
	}
	challenge, err := readAnswer(nc, challengeBytes)
	if err != nil {
		return terms{}, err
	}
	proof := prove(c.keys.client, bound, hello, challenge)
	if err := send(nc, "proof", proof); err != nil {
		return terms{}, err
	}
	welcome, err := readAnswer(nc, welcomeBytes)
	if err != nil {
		return terms{}, err
	}
	at := len(welcome) - hashBytes
	if !hmac.Equal(welcome[at:], prove(c.keys.server, bound, hello, challenge, proof, welcome[:at])) {
		return terms{}, refused(CodeKey, "the server cannot prove that it has the cluster key; %s", keysDiffer)
	}
	b := welcome[answerHead:]
	is := identity{dynamo.WorkerID(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint64(b[8:])}
	if expects.worker != 0 && is != expects {
		return terms{}, refused(CodeIdentity, "%s answers, and %s is expected", is, expects)
	}
	t := terms{window: int(binary.BigEndian.Uint32(b[16:])), message: int(binary.BigEndian.Uint32(b[20:])), streams: int(binary.BigEndian.Uint32(b[24:]))}
	return t, t.check()
}

// send writes a client's part of the handshake. A server that has refused it
// before that has closed the connection, and what it said, in its own words or in
// those of TLS, is worth more than the failure.
func send(nc net.Conn, what string, b []byte) error {
	_, err := nc.Write(b)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("send the %s: %w", what, err)
	if nc.SetReadDeadline(time.Now().Add(drainTimeout)) != nil {
		return err
	}
	_, said := readAnswer(nc, challengeBytes)
	if said == nil || errors.Is(said, syscall.ECONNRESET) || errors.Is(said, os.ErrDeadlineExceeded) || errors.Is(said, net.ErrClosed) {
		return err
	}
	return said
}

// readAnswer reads what a server says; size is that of the answer without a
// refusal.
func readAnswer(r io.Reader, size int) ([]byte, error) {
	b := make([]byte, answerHead, size)
	n, err := io.ReadFull(r, b)
	switch {
	case n >= 2 && b[0] == 21 && b[1] == 3:
		return nil, refused(codeGarbage, "the server speaks TLS and this client does not: give both sides --tls-… or neither")
	case n >= len(magic) && string(b[:len(magic)]) != magic:
		return nil, refused(codeGarbage, "another protocol is spoken there: the answer began with %q", b[:len(magic)])
	case errors.Is(err, io.EOF):
		return nil, refused(codeGarbage, "the connection was closed within the handshake; is the address that of a worker, and is it using TLS?")
	case err != nil:
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	v, status, rest := binary.BigEndian.Uint16(b[8:]), b[10], int(binary.BigEndian.Uint16(b[12:]))
	if v != version {
		return nil, versionsDiffer(v, version)
	}
	if status != statusOK {
		text := make([]byte, min(rest, maxRefusalText))
		n, _ := io.ReadFull(r, text) // what there is of it says more than an error
		code := codeGarbage
		if int(status) < len(statusCodes) {
			code = statusCodes[status]
		}
		return nil, refused(code, "the server refuses: %s", strings.ToValidUTF8(string(text[:n]), "?"))
	}
	if answerHead+rest != size {
		return nil, refused(codeGarbage, "the server's answer has %d bytes; %d are due", answerHead+rest, size)
	}
	b = b[:size]
	if _, err := io.ReadFull(r, b[answerHead:]); err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	return b, nil
}

// dial connects to one address and proves both sides.
func (c *Client) dial(ctx context.Context, address string, expects identity) (net.Conn, terms, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	network, target, ok := splitAddress(address)
	if !ok {
		return nil, terms{}, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("%q is no address: use tcp://HOST:PORT or unix:///PATH", address)}
	}
	nc, err := c.cfg.Dial(ctx, network, target)
	if err != nil {
		return nil, terms{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() }) // the handshake sees it
	wrapped, peer, err := c.shake(ctx, nc, network, target, expects)
	if !stop() {
		err = &dynamo.Error{Kind: dynamo.KindUnavailable, Message: fmt.Sprintf("no answer within %v; the process there may be stopped or the machine too slow", dialTimeout), Err: context.Cause(ctx)}
	}
	if err != nil {
		_ = nc.Close() // nothing is owed to it
		return nil, terms{}, err
	}
	return wrapped, peer, nil
}

func (c *Client) shake(ctx context.Context, nc net.Conn, network, target string, expects identity) (net.Conn, terms, error) {
	if c.cfg.TLS != nil && network != "unix" {
		cfg := c.cfg.TLS
		if cfg.ServerName == "" && !cfg.InsecureSkipVerify {
			cfg = cfg.Clone()
			cfg.ServerName, _, _ = net.SplitHostPort(target) // verification fails without a name
		}
		t := tls.Client(nc, cfg)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, terms{}, tlsError(err)
		}
		nc = t
	}
	peer, err := c.introduce(nc, expects)
	return nc, peer, err
}

// tlsError says what a failed TLS handshake looks like to a client.
func tlsError(err error) error {
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &header):
		return refused(codeGarbage, "the server answers the TLS handshake with another protocol, so it speaks no TLS: give both sides --tls-… or neither (%v)", err)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return &dynamo.Error{Kind: dynamo.KindUnavailable, Err: err, Message: "the server closed the connection instead of answering the TLS handshake; it looks as if it speaks no TLS: give both sides --tls-… or neither"}
	}
	return fmt.Errorf("TLS handshake: %w", err)
}

// splitAddress takes "tcp://host:port" or "unix:///path" apart.
func splitAddress(a string) (network, target string, ok bool) {
	network, target, ok = strings.Cut(a, "://")
	return network, target, ok && target != "" && (network == "tcp" || network == "unix")
}
