package daemon_test

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// python finds an interpreter with numpy, or skips the test unless one was named.
func python(t *testing.T) string {
	t.Helper()
	named := os.Getenv("DYN_TEST_PYTHON")
	name := cmp.Or(named, "python3")
	if out, err := exec.CommandContext(t.Context(), name, "-c", "import numpy, socket; socket.send_fds").CombinedOutput(); err != nil && named != "" {
		t.Fatalf("%s has no numpy: %v %s", name, err, out)
	} else if err != nil {
		t.Skipf("%s has no numpy here (set DYN_TEST_PYTHON): %v %s", name, err, out)
	}
	return name
}

// TestPython runs the checks of the Python client, around a restart of the daemon, and
// its example.
func TestPython(t *testing.T) {
	name := python(t)
	dir, err := filepath.Abs("../../connectors/python")
	if err != nil {
		t.Fatal(err)
	}
	c := config(t, 100)
	c.Contents = 3
	stop := start(t, c)
	cmd := exec.CommandContext(t.Context(), name, "-B", "check.py", c.Socket)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, step := range []struct {
		want, next string
		do         func()
	}{
		{"checked", "stopped", stop},
		{"missed", "started", func() { start(t, c) }},
		{"found again", "", func() {}},
	} {
		if !lines.Scan() || lines.Text() != step.want {
			t.Errorf("check.py prints %q, not %q", lines.Text(), step.want)
			break
		}
		step.do()
		fmt.Fprintln(in, step.next)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	examples(t, name, dir, c.Socket)
}

// examples runs the examples, the first twice.
func examples(t *testing.T, name, dir, socket string) {
	t.Helper()
	for i, want := range []string{"0 of 10 blocks came from the daemon\n10 blocks were computed, 10 are kept\n", "10 of 10 blocks came from the daemon\n0 blocks were computed, 0 are kept\n"} {
		cmd := exec.CommandContext(t.Context(), name, "-B", "example.py", socket)
		cmd.Dir = dir
		if got, err := cmd.CombinedOutput(); err != nil || string(got) != want {
			t.Errorf("example.py, run %d: %v\n%s", i+1, err, got)
		}
	}
	const want = "10 blocks of heads 0 to 2 are kept; the reader finds 0\n10 blocks of heads 3 to 5 are kept; the reader finds 10\n10 blocks came, tokens before heads; 0 were damaged on the way\ninvalid: layers 4 and 5\n"
	cmd := exec.CommandContext(t.Context(), name, "-B", "layouts.py", socket)
	cmd.Dir = dir
	if got, err := cmd.CombinedOutput(); err != nil || string(got) != want {
		t.Errorf("layouts.py: %v\n%s", err, got)
	}
}
