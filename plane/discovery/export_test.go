package discovery

import (
	"os"
	"time"
)

// Abandon ends a registration of File as the death of its process would.
func Abandon(r Registration) {
	l := r.(*fileLease)
	done := make(chan error, 1)
	select {
	case l.requests <- leaseRequest{done: done}:
		<-done
		<-l.ended
	case <-l.ended:
	}
}

// SetKernel makes f believe that it runs under another kernel.
func (f *File) SetKernel(name string) { f.kernel = name }

// SetNoLocks makes f work as on a file system without locks.
func (f *File) SetNoLocks() { f.lock = func(*os.File) error { return errNoLocks } }

// SetPolling makes f work without inotify.
func (f *File) SetPolling(pace time.Duration) { f.poll, f.pace = true, pace }

// SetWrite replaces how f writes files.
func (f *File) SetWrite(write func(*os.File, []byte) error) { f.write = write }

// WriteSynced is how f writes files.
var WriteSynced = writeSynced

// Dir is the folder of the instances.
func (f *File) Dir() string { return f.dir }

// FileName is the name of an instance's file.
func FileName(i Instance) string { return fileName(i.Key()) }

// DecodeFile reads an instance's file.
func DecodeFile(b []byte) (Instance, error) {
	i, _, err := decodeFile(b)
	return i, err
}
