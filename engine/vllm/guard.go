package vllm

import (
	"fmt"
	"io"
	"os/exec"
	"syscall"
)

// guardScript waits for a group and for word that nothing is left to guard. A pipe
// that ends without that word is the end of whoever held it: the group goes with it,
// asked first, so that it can free what it holds, and killed a second later.
const guardScript = `trap '' TERM INT HUP QUIT
read -r group || exit 0
read -r word && exit 0
kill -s TERM -- "-$group"
sleep 1
kill -s KILL -- "-$group"`

// guard outlives this process if it is killed, for long enough to end a server's
// process group. It is a shell that waits at a pipe; it is in a session of its own,
// because what ends this process may be meant for the whole group or terminal.
type guard struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// startGuard starts a guard that guards nothing yet.
func startGuard() (*guard, error) {
	g := &guard{cmd: exec.Command("/bin/sh", "-c", guardScript)}
	g.cmd.Env = []string{"PATH=/usr/bin:/bin"}
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var err error
	if g.pipe, err = g.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return g, g.cmd.Start()
}

// watch tells the guard which group it guards.
func (g *guard) watch(group int) error {
	_, err := fmt.Fprintln(g.pipe, group)
	return err
}

// release ends the guard and nothing else.
func (g *guard) release() {
	// A guard that has gone already guards nothing either.
	_, _ = io.WriteString(g.pipe, "0\ndone\n")
	_ = g.pipe.Close()
	_ = g.cmd.Wait()
}
