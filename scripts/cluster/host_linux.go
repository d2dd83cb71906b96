package main

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// starts carries processes to the one thread that starts them: the kernel kills a
// child with the *thread* that made it, so that thread must live as long as this
// process. Its goroutine ends with the process.
var starts = sync.OnceValue(func() chan<- startRequest {
	c := make(chan startRequest)
	go func() {
		runtime.LockOSThread()
		for r := range c {
			r.result <- r.cmd.Start()
		}
	}()
	return c
})

type startRequest struct {
	cmd    *exec.Cmd
	result chan error
}

// start starts a process that dies with this one, however this one dies.
func start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	r := startRequest{cmd, make(chan error, 1)}
	starts() <- r
	return <-r.result
}

// hold locks a file as a process that lives does with its entry in the store.
func hold(f *os.File) error {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
}
