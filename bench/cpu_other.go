//go:build !unix

package bench

import "time"

// cpuTime is the user and system time of this process; nobody tells it here.
func cpuTime() time.Duration { return 0 }
