//go:build !unix

package index

import "time"

// cpuTime is the processor time of this process; nobody tells it here.
func cpuTime() time.Duration { return 0 }
