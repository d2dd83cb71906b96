package selection

import "sync"

// inside counts the calls that are handled, over whatever transport.
type inside struct {
	mu struct {
		sync.Mutex
		n    int
		idle chan struct{} // closed when n comes to 0; nil while nobody waits
	}
}

// begin lets a call in, unless there are as many as there may be.
func (i *inside) begin() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.mu.n >= maxHandlers {
		return false
	}
	i.mu.n++
	return true
}

// full reports whether a call would be let in at this moment.
func (i *inside) full() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.mu.n >= maxHandlers
}

func (i *inside) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.mu.n--; i.mu.n == 0 && i.mu.idle != nil {
		close(i.mu.idle)
		i.mu.idle = nil
	}
}

// none returns a channel that is closed once no call is handled.
func (i *inside) none() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.mu.idle == nil {
		i.mu.idle = make(chan struct{})
	}
	idle := i.mu.idle
	if i.mu.n == 0 {
		close(idle)
		i.mu.idle = nil
	}
	return idle
}
