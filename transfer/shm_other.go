//go:build !linux

package transfer

import (
	"context"
	"net"
)

func newShm(*Agent) backend { return noShm{} }

// noShm stands for the path shm where there is none.
type noShm struct{}

func (noShm) path() Path              { return PathShm }
func (noShm) address() string         { return "" }
func (noShm) open(*Peer, string) rail { return nil }

func (a *Agent) attachable(m MemoryID) error { return unregistered(m) }

func (a *Agent) seat(uint64, net.Conn, greeting) error { return nil }

// window is a peer's memory mapped in this process.
type window struct{}

func (a *Agent) hearBell(net.Conn, greeting) error { return nil }

// ear hears rings in shared memory, of which there are none.
type ear struct{}

func (*ear) init()                             {}
func (*ear) close()                            {}
func (*ear) rouse() bool                       { return false }
func (*ear) wait(context.Context, *inbox) bool { return false }
