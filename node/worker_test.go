package node

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/discovery"
)

// dials notes how connections are made.
type dials struct {
	mu struct {
		sync.Mutex
		networks []string
	}
}

func (d *dials) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.mu.networks = append(d.mu.networks, network)
	}
	return c, err
}

func (d *dials) made() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.mu.networks)
}

// elsewhere makes a store's workers stand on another host.
type elsewhere struct{ discovery.Store }

// Register implements discovery.Store.
func (s elsewhere) Register(ctx context.Context, i discovery.Instance) (discovery.Registration, error) {
	i.Host = "another host"
	return s.Store.Register(ctx, i)
}

// A worker's socket is used on its own host, its TCP address elsewhere.
func TestUnixSocket(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"same host", nil, "unix"},
		{"other host", func(n *Config) { n.Cluster.Store = elsewhere{n.Cluster.Store} }, "tcp"},
		{"without socket", func(n *Config) { n.Worker.Unix = false }, "tcp"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "dyn") // paths of sockets are short
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			c := newCluster(t, func(n *Config) { n.Worker.Unix, n.Cluster.RunDir = true, filepath.Join(dir, "run") })
			w := c.start(RoleWorker, tc.edit)
			i := c.instance(w.Worker)
			if got := i.Addresses[len(i.Addresses)-1]; got != "tcp://"+w.Addr {
				t.Errorf("the addresses are %v, bound is %s", i.Addresses, w.Addr)
			}
			if tc.want == "unix" && (len(i.Addresses) != 2 || !strings.HasPrefix(i.Addresses[0], "unix://"+dir)) {
				t.Errorf("the addresses are %v", i.Addresses)
			}
			d := &dials{}
			front := c.start(RoleFrontend, func(n *Config) { n.Cluster.Dial = d.dial })
			eventually(t, "the model is served", func() bool { return strings.Contains(fetch(t, front.url+"/v1/models"), `"m"`) })
			if got := d.made(); len(got) != 1 || got[0] != tc.want {
				t.Errorf("connections are made by %v, want %s", got, tc.want)
			}
			front.end(t)
			w.end(t)
			if left, err := filepath.Glob(filepath.Join(dir, "run", "*.sock")); err != nil || len(left) != 0 {
				t.Errorf("left are %v, %v", left, err)
			}
		})
	}
}

// A run directory whose path is too long for a socket costs the socket alone.
func TestLongRunDir(t *testing.T) {
	var log record
	c := newCluster(t, func(n *Config) {
		n.Worker.Unix, n.Cluster.RunDir, n.Logger = true, filepath.Join(t.TempDir(), strings.Repeat("long", 30)), log.logger()
	})
	w := c.start(RoleWorker, nil)
	if i := c.instance(w.Worker); len(i.Addresses) != 1 || i.Addresses[0] != "tcp://"+w.Addr {
		t.Errorf("the addresses are %v", i.Addresses)
	}
	if !log.holds("level=WARN", "no Unix socket", "TCP") {
		t.Error("the log does not say that there is no socket")
	}
	front := c.start(RoleFrontend, nil)
	eventually(t, "the model is served", func() bool { return strings.Contains(fetch(t, front.url+"/v1/models"), `"m"`) })
}

// What a worker advertises is what frontends dial, and is checked.
func TestAdvertise(t *testing.T) {
	c := newCluster(t, nil)
	w := c.start(RoleWorker, func(n *Config) { n.Worker.Advertise = "node7.example:7000" })
	if i := c.instance(w.Worker); !slices.Equal(i.Addresses, []string{"tcp://node7.example:7000"}) {
		t.Errorf("the addresses are %v", i.Addresses)
	}
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ given, bound, want string }{
		{"", "127.0.0.1:7000", "127.0.0.1:7000"}, {"", "0.0.0.0:7000", net.JoinHostPort(name, "7000")}, {"", "[::]:7000", net.JoinHostPort(name, "7000")},
		{"[::1]:80", "0.0.0.0:7000", "[::1]:80"}, {"h:1", "0.0.0.0:7000", "h:1"},
	} {
		if got, err := advertised(tc.given, tc.bound); got != tc.want || err != nil {
			t.Errorf("%q, bound to %s: got %q, %v; want %q", tc.given, tc.bound, got, err, tc.want)
		}
	}
	key := keyFile(t, "5a")
	for _, bad := range []string{"host", "host:", ":7000", "host:x", "host:70000", "host:0", "::1:80", "tcp://host:80"} {
		err := runWith(t, RoleWorker, func(c *Config) { c.Cluster.KeyFile, c.Worker.Advertise = key, bad })
		if dynamo.KindOf(err) != dynamo.KindInvalid || err == nil || !strings.Contains(err.Error(), "--rpc-advertise") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

// A worker draws another name each time, unless it is given one.
func TestWorkerID(t *testing.T) {
	n := &Node{}
	a, _ := n.identity()
	b, _ := n.identity()
	if a == 0 || b == 0 || a == b {
		t.Errorf("drawn are %v and %v", a, b)
	}
	n.cfg.Worker.ID = 5
	if got, epoch := n.identity(); got != 5 || epoch == 0 {
		t.Errorf("got %v, %d", got, epoch)
	}
}

// An address that cannot be taken is an error by the worker's own flags.
func TestWorkerPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	key, port := keyFile(t, "5a"), uint16(l.Addr().(*net.TCPAddr).Port)
	if err := runWith(t, RoleWorker, func(c *Config) { c.Cluster.KeyFile, c.Worker.Port = key, port }); dynamo.KindOf(err) != dynamo.KindUnavailable || !strings.Contains(err.Error(), "--rpc-port") || strings.Contains(err.Error(), "--http") {
		t.Errorf("a port in use: %v", err)
	}
	if err := runWith(t, RoleWorker, func(c *Config) { c.Cluster.KeyFile, c.Worker.Host = key, "192.0.2.1" }); err == nil || !strings.Contains(err.Error(), "--rpc-host") {
		t.Errorf("an address of another machine: %v", err)
	}
}

// A cluster of files: the store makes the key, and a person sees and drains it.
func TestFileStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	files := func(c *Config) { c.Cluster.Discovery, c.Cluster.RunDir = "file", dir }
	c := newCluster(t, func(n *Config) {
		files(n)
		n.Cluster.Store, n.Cluster.KeyFile = nil, ""
	})
	front := c.start(RoleFrontend, nil)
	w := c.start(RoleWorker, func(n *Config) { n.Worker.ID = 0x2a })
	eventually(t, "the model is served", func() bool { return strings.Contains(fetch(t, front.url+"/v1/models"), `"m"`) })
	resp := post(t, front.url+"/v1/completions", `{"model":"m","prompt":"abc","max_tokens":5,"ignore_eos":true}`)
	if b, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(b), `"abcab"`) {
		t.Errorf("got %s, %v", b, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "cluster.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info, err)
	}
	look := DefaultConfig()
	files(&look)
	v, err := OpenCluster(look)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	all, problems, err := v.Workers(t.Context())
	if err != nil || len(problems) != 0 || len(all) != 1 || all[0].Err != nil || all[0].Status.State != "ready" {
		t.Errorf("got %+v, %v, %v", all, problems, err)
	}
	if id, err := v.Drain(t.Context(), "2a"); err != nil || id != 0x2a {
		t.Errorf("Drain: %v, %v", id, err)
	}
	if err := <-w.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	w.ended = true
	if all, _, err = v.Workers(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("left are %+v, %v", all, err)
	}
	http.DefaultClient.CloseIdleConnections()
}

// A worker tells of its health and metrics where it is given a listener for them.
func TestWorkerHealth(t *testing.T) {
	c := newCluster(t, nil)
	l, err := Listen("127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	w := c.start(RoleWorker, func(n *Config) { n.Listener = l })
	url := "http://" + l.Addr().String()
	resp, err := http.Get(url + "/health")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(b), w.Worker.String()) {
		t.Errorf("got %d %s, %v", resp.StatusCode, b, err)
	}
	if m := fetch(t, url+"/metrics"); !strings.Contains(m, "dynamo_worker_") || !strings.Contains(m, "dynamo_rpc_") {
		t.Error("the metrics lack the worker's or rpc's")
	}
	http.DefaultClient.CloseIdleConnections()
	w.end(t)
	if _, err := http.Get(url + "/health"); err == nil {
		t.Error("a worker that has ended answers")
	}
}
