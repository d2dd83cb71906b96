//go:build !linux

package daemon

import (
	"net"
	"os"

	"github.com/dynamo-go/dynamo"
)

var errSystem = &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the KV daemon shares memory by sealed files, which only Linux has"}

func lockFile(*os.File) error { return errSystem }

func receive(conn *net.UnixConn, b []byte) (int, []*os.File, error) {
	n, err := conn.Read(b)
	return n, nil, err
}

func mapFile(*os.File, uint64) ([]byte, error) { return nil, errSystem }

func unmap([]byte) {}

func rights(*os.File) []byte { return nil }
