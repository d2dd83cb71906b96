package index

import (
	"os"
	"strconv"
	"strings"
)

// resident is the memory of this process in bytes; 0 where Linux does not tell.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64) // what is no number is 0 pages
	return pages * int64(os.Getpagesize())
}
