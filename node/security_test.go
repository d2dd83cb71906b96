package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
)

// A worker with another key is never used, and the reason is in the log.
func TestOtherKey(t *testing.T) {
	other := otherKey(t)
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("front", nil)
		b.start("w1", func(c *Config) { c.Cluster.KeyFile = other })
		b.start("w2", nil)
		b.awaitState("front", "w2", "ready")
		b.awaitState("front", "w1", "unreachable")
		b.awaitModels("front", "m")
		for range 5 {
			b.wants("front", "m")
		}
		time.Sleep(time.Minute)
		if state := b.health("front")["w1"].State; !strings.HasPrefix(state, "unreachable: ") || !strings.Contains(state, "cluster keys differ") {
			t.Errorf("w1 is %q", state)
		}
		if !b.log.holds("level=WARN", "host=front", "worker not connected", "0000000000000001", "--cluster-key-file") {
			t.Error("the frontend's log does not say that the keys differ")
		}
	})
}

// A key file that cannot be used is an error that names the flag, for a worker, a
// frontend and a person.
func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := strings.Repeat("5a", 32)
	for _, tc := range []struct{ name, path, say string }{
		{"missing", filepath.Join(dir, "nowhere"), "nowhere"}, {"garbled", write("garbled", strings.Repeat("zz", 32), 0o600), "hexadecimal"},
		{"short", write("short", good[2:], 0o600), "32 bytes"}, {"long", write("long", good+"00", 0o600), "32 bytes"}, {"empty", write("empty", "", 0o600), "32 bytes"},
		{"open", write("open", good, 0o644), "chmod 600"}, {"folder", dir, ""},
	} {
		for _, role := range []string{RoleWorker, RoleFrontend, "person"} {
			err := runWith(t, role, func(c *Config) { c.Cluster.KeyFile = tc.path })
			if err == nil || !strings.Contains(err.Error(), "--cluster-key-file") || !strings.Contains(err.Error(), tc.say) {
				t.Errorf("%s, %s: got %v", role, tc.name, err)
			}
		}
	}
	for _, role := range []string{RoleWorker, RoleFrontend, "person"} {
		if err := runWith(t, role, func(c *Config) { c.Cluster.KeyFile, c.StateDir = "", "" }); err == nil || !strings.Contains(err.Error(), "--cluster-key-file") {
			t.Errorf("%s without any key: got %v", role, err)
		}
	}
}

// runWith runs a node of a role that is to fail, over real sockets.
func runWith(t *testing.T, role string, edit func(*Config)) error {
	t.Helper()
	c := DefaultConfig()
	c.Role, c.Engine, c.ModelName, c.ModelPath, c.Cluster.Discovery = role, EngineEcho, "m", tinyFolder(t), "mem"
	if role == "person" {
		edit(&c)
		v, err := OpenCluster(c)
		if err == nil {
			t.Errorf("it opens the cluster: %v", v.Close())
		}
		return err
	}
	if role == RoleFrontend {
		l, err := Listen("127.0.0.1", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // Run does, if New lets it come to that
		c.Listener = l
	}
	c.Worker.Host = "127.0.0.1"
	edit(&c)
	n, err := New(c)
	if err != nil {
		return err
	}
	return n.Run(t.Context())
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, key := a.make(template, template)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.key, a.file = key, a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) make(template, parent *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

func (a *authority) write(name, kind string, der []byte) string {
	path := filepath.Join(a.t.TempDir(), name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue returns the files of a certificate for a host.
func (a *authority) issue(host string) (cert, key string) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), DNSNames: []string{host},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, private := a.make(template, a.cert)
	b, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write("cert.pem", "CERTIFICATE", der), a.write("key.pem", "PRIVATE KEY", b)
}

// TLS between frontend and worker: who shows what, and what is said when it does
// not do.
func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	workerCert, workerKey := ours.issue("w1")
	frontCert, frontKey := ours.issue("front")
	strangeCert, strangeKey := theirs.issue("front")
	elsewhereCert, elsewhereKey := ours.issue("elsewhere")
	with := func(cert, key, ca string) func(*Config) {
		return func(c *Config) { c.Cluster.TLSCert, c.Cluster.TLSKey, c.Cluster.TLSCA = cert, key, ca }
	}
	for _, tc := range []struct {
		name          string
		worker, front func(*Config)
		say           string // of the frontend's log; empty: it works
		refuses       string // what the worker says, whose word the frontend may miss
	}{
		{"server only", with(workerCert, workerKey, ""), with("", "", ours.file), "", ""},
		{"mutual", with(workerCert, workerKey, ours.file), with(frontCert, frontKey, ours.file), "", ""},
		{"no certificate", with(workerCert, workerKey, ours.file), with("", "", ours.file), "", "client didn't provide a certificate"},
		{"strange certificate", with(workerCert, workerKey, ours.file), with(strangeCert, strangeKey, ours.file), "", "certificate signed by unknown authority"},
		{"wrong authority", with(workerCert, workerKey, ""), with("", "", theirs.file), "certificate signed by unknown authority", ""},
		{"wrong host", with(elsewhereCert, elsewhereKey, ""), with("", "", ours.file), "elsewhere", ""},
		{"frontend without", with(workerCert, workerKey, ""), with("", "", ""), "using TLS", ""},
		{"worker without", with("", "", ""), with("", "", ours.file), "TLS handshake", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				b.start("front", tc.front)
				b.start("w1", tc.worker)
				if tc.say+tc.refuses == "" {
					b.awaitModels("front", "m")
					b.wants("front", "m")
					all, _, err := b.look(tc.front).Workers(t.Context())
					if err != nil || len(all) != 1 || all[0].Err != nil {
						t.Errorf("a person sees %+v, %v", all, err)
					}
					return
				}
				time.Sleep(5 * time.Second)
				if got := b.models("front"); got != "" {
					t.Errorf("the models are %q", got)
				}
				if !b.log.holds("level=WARN", "host=front", "worker not connected", tc.say) {
					t.Errorf("the frontend's log does not say %q", tc.say)
				}
				if tc.refuses != "" && !b.log.holds("level=WARN", "host=w1", tc.refuses) {
					t.Errorf("the worker's log does not say %q", tc.refuses)
				}
				all, _, err := b.look(tc.front).Workers(t.Context())
				if err != nil || len(all) != 1 || all[0].Err == nil || !strings.Contains(all[0].Err.Error(), tc.say) {
					t.Errorf("a person sees %+v, %v; want %q", all, err, tc.say)
				}
			})
		})
	}
}

// Certificates that cannot be used are errors that name the flag.
func TestTLSFiles(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("w1")
	_, otherKey := a.issue("w1")
	garbled := filepath.Join(t.TempDir(), "garbled.pem")
	if err := os.WriteFile(garbled, []byte("-----BEGIN"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, cert, key, ca string
		say                 string
		worker              bool // of a worker alone
	}{
		{"key missing", cert, "", "", "--tls-key", false}, {"certificate missing", "", key, "", "--tls-cert", false}, {"no file", "/nowhere/c", key, "", "--tls-cert", false},
		{"another's key", cert, otherKey, "", "--tls-key", false}, {"garbled certificate", garbled, key, "", "--tls-cert", false},
		{"garbled authority", cert, key, garbled, "--tls-ca", false}, {"no authority", cert, key, "/nowhere/ca", "--tls-ca", false},
		{"a worker without", "", "", a.file, "--tls-cert", true},
	} {
		for _, role := range []string{RoleWorker, RoleFrontend, "person"} {
			if tc.worker && role != RoleWorker {
				continue
			}
			err := runWith(t, role, func(c *Config) {
				c.Cluster.KeyFile, c.Cluster.TLSCert, c.Cluster.TLSKey, c.Cluster.TLSCA = keyFile(t, "5a"), tc.cert, tc.key, tc.ca
			})
			if err == nil || !strings.Contains(err.Error(), tc.say) || tc.worker && dynamo.KindOf(err) != dynamo.KindInvalid {
				t.Errorf("%s, %s: got %v, want it to name %s", role, tc.name, err, tc.say)
			}
		}
	}
}
