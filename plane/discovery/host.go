package discovery

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"sync"
)

// HostID names the view of the file system that this process has: processes with
// equal ids reach each other's Unix sockets by path. It is the host's name and a
// digest of the boot and the mount namespace, so that containers of one host
// differ.
func HostID() string { return hostID() }

var hostID = sync.OnceValue(func() string {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown" // the digest tells hosts apart
	}
	mounts, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		mounts = "" // a system without mount namespaces has one view
	}
	sum := sha256.Sum256([]byte(name + "\n" + firstLine("/etc/machine-id") + "\n" + kernelID() + "\n" + mounts))
	return name + "-" + hex.EncodeToString(sum[:6])
})

// kernelID names the running kernel, within which locks on files are seen by
// everybody; empty if it has no name.
var kernelID = sync.OnceValue(func() string { return firstLine("/proc/sys/kernel/random/boot_id") })

// firstLine reads a file of the system; empty if there is none.
func firstLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}
