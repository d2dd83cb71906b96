package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/dynamo-go/dynamo"
)

// Listen takes a TCP address; port 0 takes a free one. The error says what to do
// about a port in use or one that needs rights.
func Listen(host string, port uint16) (net.Listener, error) {
	return listenTCP(host, port, "http-")
}

// ListenRouter takes the TCP address of a RoleRouter, whose flags are --host and --port.
func ListenRouter(host string, port uint16) (net.Listener, error) {
	return listenTCP(host, port, "")
}

// listenTCP takes an address that --host and --port name, with flags before both words.
func listenTCP(host string, port uint16, flags string) (net.Listener, error) {
	return listenBy(&net.ListenConfig{}, host, port, flags)
}

// listenPlainTCP does the same for connections that send zero-copy, which those that a
// listener of Multipath TCP accepts do not, even to peers that know nothing of it.
func listenPlainTCP(host string, port uint16, flags string) (net.Listener, error) {
	c := &net.ListenConfig{}
	c.SetMultipathTCP(false)
	return listenBy(c, host, port, flags)
}

func listenBy(c *net.ListenConfig, host string, port uint16, flags string) (net.Listener, error) {
	addr := net.JoinHostPort(host, strconv.Itoa(int(port)))
	l, err := c.Listen(context.Background(), "tcp", addr)
	var dns *net.DNSError
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, unix.EADDRINUSE):
		return nil, &dynamo.Error{Kind: dynamo.KindUnavailable, Message: fmt.Sprintf("port %d of %s is in use by another process; stop that one, or choose another with --%sport (0 takes a free one)", port, host, flags)}
	case errors.Is(err, unix.EACCES):
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("listening on port %d needs rights this process lacks; choose a port above 1023 with --%sport", port, flags)}
	case errors.Is(err, unix.EADDRNOTAVAIL), errors.As(err, &dns):
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("%q is no address of this machine; give one with --%shost (127.0.0.1, or 0.0.0.0 for every interface)", host, flags)}
	}
	return nil, fmt.Errorf("listen on %s: %w", addr, err)
}

// writeAddrFile writes the bound address so that nobody ever reads half of it.
func writeAddrFile(path, addr string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write --addr-file: %w", err)
	}
	defer os.Remove(tmp.Name()) // fails once it has been renamed
	_, err = tmp.WriteString(addr + "\n")
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write --addr-file: %w", err)
	}
	return nil
}

// removeStale deletes an address file of an earlier run, which would tell
// scripts that this one serves already.
func removeStale(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the old --addr-file: %w", err)
	}
	return nil
}
