package transfer

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
)

// A connection begins with a handshake; integers are big-endian.
//
//	client  hello: 8 magic, 2 version, 1 purpose, 1 zero, 32 nonce, 16 own id,
//	        16 id of whom it expects, 4 memory to attach, or which of its
//	        connections this is, text own name
//	server  answer with 32 bytes: nonce
//	client  proof: HMAC by the client's key over binding, hello, challenge
//	server  answer with 32 bytes: HMAC by the server's key over binding, hello,
//	        challenge, proof
//
// An answer is 8 magic, 2 version, 1 status, 1 zero, 2 length, and as many bytes: a
// text if the status is not 0. The binding is a secret of the TLS session, or zeros.
const (
	shakeMagic   = "dynxfer\n"
	shakeVersion = 1
	nonceBytes   = 32
	helloFixed   = 8 + 2 + 1 + 1 + nonceBytes + 16 + 16 + 4
	answerHead   = 8 + 2 + 1 + 1 + 2

	purposeFrames = 1
	purposeAttach = 2
	purposeBell   = 3
)

// The status of an answer.
const (
	statusOK = iota
	statusVersion
	statusKey
	statusIdentity
	statusCrowded
	statusMemory
)

var statusCodes = [...]string{statusOK: "", statusVersion: CodeVersion, statusKey: CodeKey, statusIdentity: CodeIdentity, statusCrowded: CodeLost, statusMemory: CodeMemory}

// greeting is what a client says of itself.
type greeting struct {
	purpose byte
	id      AgentID
	name    string
	memory  MemoryID
}

// binding ties the proofs to the TLS session they travel in.
func binding(nc net.Conn) ([]byte, error) {
	t, ok := nc.(*tls.Conn)
	if !ok {
		return make([]byte, macBytes), nil
	}
	state := t.ConnectionState()
	b, err := state.ExportKeyingMaterial("EXPORTER-dynamo-transfer", nil, macBytes)
	if err != nil {
		return nil, fmt.Errorf("bind to the TLS session (TLS 1.3 can): %w", err)
	}
	return b, nil
}

func answer(status byte, body []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte(shakeMagic), shakeVersion)
	b = append(b, status, 0)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
}

// greet is the server's side. The client is told why it is refused.
func (a *Agent) greet(conn uint64, nc net.Conn) (g greeting, err error) {
	g, status, err := a.authenticate(conn, nc)
	if err == nil || status == statusOK {
		return g, err
	}
	text := err.Error()
	if _, werr := nc.Write(answer(status, []byte(text[:min(len(text), maxTextBytes)]))); werr == nil {
		if half, ok := nc.(halfCloser); ok && half.CloseWrite() == nil {
			_, _ = io.CopyN(io.Discard, nc, maxTextBytes) // lets it read the answer before the connection is reset
		}
	}
	return g, err
}

func (a *Agent) authenticate(conn uint64, nc net.Conn) (g greeting, status byte, err error) {
	bound, err := binding(nc)
	if err != nil {
		return g, statusOK, err
	}
	hello, g, err := readHello(nc)
	if err != nil {
		return g, statusOK, err
	}
	if v := binary.BigEndian.Uint16(hello[8:]); v != shakeVersion {
		return g, statusVersion, versionsDiffer(shakeVersion, v)
	}
	var nonce [nonceBytes]byte
	rand.Read(nonce[:])
	challenge := answer(statusOK, nonce[:])
	if _, err := nc.Write(challenge); err != nil {
		return g, statusOK, fmt.Errorf("challenge the peer: %w", err)
	}
	proof := make([]byte, macBytes)
	if _, err := io.ReadFull(nc, proof); err != nil {
		return g, statusOK, fmt.Errorf("read the peer's proof: %w", err)
	}
	if !hmac.Equal(proof, prove(a.keys.client, bound, hello, challenge)) {
		return g, statusKey, keysDiffer()
	}
	if AgentID(hello[60:76]) != a.id {
		return g, statusIdentity, coded(dynamo.KindUnavailable, CodeIdentity, "agent %q (%s) answers here, and %s is expected; import the metadata of who runs there", a.cfg.Name, a.id, AgentID(hello[60:76]))
	}
	if g.purpose == purposeAttach {
		if err := a.attachable(g.memory); err != nil && dynamo.KindOf(err) == dynamo.KindExhausted {
			return g, statusCrowded, err // another path may do
		} else if err != nil {
			return g, statusMemory, err
		}
	}
	if g.purpose == purposeFrames {
		if err := a.succeed(g, conn); err != nil {
			return g, statusCrowded, err
		}
	}
	if _, err := nc.Write(answer(statusOK, prove(a.keys.server, bound, hello, challenge, proof))); err != nil {
		return g, statusOK, fmt.Errorf("welcome the peer: %w", err)
	}
	return g, statusOK, nil
}

func keysDiffer() error {
	return coded(dynamo.KindUnavailable, CodeKey, "cluster keys differ: give both sides the same --cluster-key-file")
}

func versionsDiffer(server, client uint16) error {
	return coded(dynamo.KindUnavailable, CodeVersion, "the server speaks version %d of the transfer protocol, the client version %d: run the same release of dynamo on both", server, client)
}

// readHello reads a client's hello. Of another version only the version counts.
func readHello(r io.Reader) (hello []byte, g greeting, err error) {
	hello = make([]byte, helloFixed+2)
	if _, err := io.ReadFull(r, hello[:8]); err != nil {
		return nil, g, fmt.Errorf("read the peer's hello: %w", err)
	}
	if string(hello[:8]) != shakeMagic {
		return nil, g, fmt.Errorf("a stranger speaks another protocol (with TLS on one side only it looks so, too): it began with %q", hello[:8])
	}
	if _, err := io.ReadFull(r, hello[8:10]); err != nil {
		return nil, g, fmt.Errorf("read the peer's hello: %w", err)
	}
	if binary.BigEndian.Uint16(hello[8:]) != shakeVersion {
		return hello, g, nil
	}
	if _, err := io.ReadFull(r, hello[10:]); err != nil {
		return nil, g, fmt.Errorf("read the peer's hello: %w", err)
	}
	n := int(binary.BigEndian.Uint16(hello[helloFixed:]))
	if n > maxTextBytes || hello[10] < purposeFrames || hello[10] > purposeBell {
		return nil, g, fmt.Errorf("a peer with a name of %d bytes, for purpose %d", n, hello[10])
	}
	hello = append(hello, make([]byte, n)...)
	if _, err := io.ReadFull(r, hello[helloFixed+2:]); err != nil {
		return nil, g, fmt.Errorf("read the peer's hello: %w", err)
	}
	g = greeting{purpose: hello[10], id: AgentID(hello[44:60]), name: strings.ToValidUTF8(string(hello[helloFixed+2:]), "?"), memory: MemoryID(binary.BigEndian.Uint32(hello[76:]))}
	return hello, g, nil
}

// introduce is the client's side.
func (a *Agent) introduce(nc net.Conn, expects AgentID, purpose byte, m MemoryID) error {
	bound, err := binding(nc)
	if err != nil {
		return err
	}
	hello := binary.BigEndian.AppendUint16([]byte(shakeMagic), shakeVersion)
	hello = append(hello, purpose, 0)
	var nonce [nonceBytes]byte
	rand.Read(nonce[:])
	hello = append(append(append(hello, nonce[:]...), a.id[:]...), expects[:]...)
	hello = binary.BigEndian.AppendUint32(hello, uint32(m))
	hello = appendText(hello, a.cfg.Name)
	if _, err := nc.Write(hello); err != nil {
		return fmt.Errorf("send the hello: %w", err)
	}
	challenge, err := readAnswer(nc)
	if err != nil {
		return err
	}
	proof := prove(a.keys.client, bound, hello, challenge)
	if _, err := nc.Write(proof); err != nil {
		return fmt.Errorf("send the proof: %w", err)
	}
	welcome, err := readAnswer(nc)
	if err != nil {
		return err
	}
	if !hmac.Equal(welcome[answerHead:], prove(a.keys.server, bound, hello, challenge, proof)) {
		return keysDiffer()
	}
	return nil
}

// readAnswer reads what a server says.
func readAnswer(r io.Reader) ([]byte, error) {
	b := make([]byte, answerHead)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("the connection ended within the handshake (with TLS on one side only it does): %w", err)
	}
	v, status, n := binary.BigEndian.Uint16(b[8:]), b[10], int(binary.BigEndian.Uint16(b[12:]))
	switch {
	case string(b[:8]) != shakeMagic:
		return nil, coded(dynamo.KindUnavailable, CodeVersion, "another protocol is spoken there (with TLS on one side only it looks so, too): the answer began with %q", b[:8])
	case v != shakeVersion:
		return nil, versionsDiffer(v, shakeVersion)
	case n > maxTextBytes || int(status) >= len(statusCodes) || status == statusOK && n != macBytes:
		return nil, coded(dynamo.KindUnavailable, CodeVersion, "the server's answer is none: status %d, %d bytes", status, n)
	}
	b = append(b, make([]byte, n)...)
	if _, err := io.ReadFull(r, b[answerHead:]); err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	if status != statusOK {
		return nil, coded(dynamo.KindUnavailable, statusCodes[status], "the peer refuses: %s", strings.ToValidUTF8(string(b[answerHead:]), "?"))
	}
	return b, nil
}

// connect dials a peer and proves both sides.
func (a *Agent) connect(ctx context.Context, p *Peer, purpose byte, m MemoryID, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	nc, err := dial(ctx)
	if err != nil {
		return nil, lost(err, "%q cannot be reached", p.Name())
	}
	if d, ok := ctx.Deadline(); ok {
		_ = nc.SetDeadline(d) // the close below bounds it too
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() }) // the handshake sees it
	err = a.introduce(nc, p.id, purpose, m)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = nc.Close() // nothing is owed to it
		switch code := codeOf(err); code {
		case "":
		case CodeMemory:
			return nil, coded(dynamo.KindNotFound, CodeMemory, "%q has no memory %d to map (any more); import its metadata anew", p.Name(), m)
		default:
			return nil, &dynamo.Error{Kind: dynamo.KindUnavailable, Code: code, Message: fmt.Sprintf("%q is not the peer it should be", p.Name()), Err: err}
		}
		return nil, lost(err, "%q does not complete the handshake", p.Name())
	}
	return nc, nil
}
