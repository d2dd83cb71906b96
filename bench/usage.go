package bench

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// userHZ is the unit of CPU times in /proc on every architecture Go supports.
const userHZ = 100

// machine describes what the client runs on.
func machine() string {
	s := fmt.Sprintf("%s/%s, %d CPUs, %s", runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), runtime.Version())
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return s // not Linux
	}
	for l := range strings.SplitSeq(string(b), "\n") {
		if name, value, _ := strings.Cut(l, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value) + ", " + s
		}
	}
	return s
}

// readProcesses reads what each process has used so far, by name.
func readProcesses(pids map[string]int) (map[string]ProcessUse, error) {
	all := map[string]ProcessUse{}
	for name, pid := range pids {
		u, err := readProcess(pid)
		if err != nil {
			return nil, fmt.Errorf("--pid %s=%d: %w", name, pid, err)
		}
		u.Name = name
		all[name] = u
	}
	return all, nil
}

// processesSince returns what each process used since before, sorted by name.
func processesSince(pids map[string]int, before map[string]ProcessUse) ([]ProcessUse, error) {
	now, err := readProcesses(pids)
	var list []ProcessUse
	for name, u := range now {
		u.CPUSeconds -= before[name].CPUSeconds
		list = append(list, u)
	}
	slices.SortFunc(list, func(a, b ProcessUse) int { return strings.Compare(a.Name, b.Name) })
	return list, err
}

func readProcess(pid int) (ProcessUse, error) {
	u := ProcessUse{PID: pid}
	dir := "/proc/" + strconv.Itoa(pid)
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return u, err
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 13 {
		return u, fmt.Errorf("%s/stat has %d fields after the name; 13 or more belong there", dir, len(f))
	}
	u.CPUSeconds = float64(whole(f[11])+whole(f[12])) / userHZ
	if b, err = os.ReadFile(dir + "/status"); err != nil {
		return u, err
	}
	for l := range strings.SplitSeq(string(b), "\n") {
		name, value, _ := strings.Cut(l, ":")
		kib := int64(whole([]byte(strings.TrimSpace(strings.TrimSuffix(value, " kB")))))
		switch name {
		case "VmRSS":
			u.RSSBytes = kib << 10
		case "VmHWM":
			u.PeakBytes = kib << 10
		}
	}
	return u, nil
}

// ownCPU is the processor time of this process so far.
func ownCPU() time.Duration { return cpuTime() }
