package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo/node"
)

// dispatchIn runs the program in this process with no environment and no home.
func dispatchIn(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	t.Setenv("HOME", "/nowhere")
	t.Setenv("XDG_CONFIG_HOME", "/nowhere")
	var out, errs bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
	err = a.dispatch(args)
	return out.String(), err
}

func TestByteSize(t *testing.T) {
	for in, want := range map[string]string{
		"512MiB": "512MiB", "1g": "1GiB", "1.5 GiB": "1536MiB", "4096": "4KiB", "1000": "1000", "2GB": "1953125KiB", "auto": "auto", "0": "auto", "7b": "7",
	} {
		var b byteSize
		if err := b.UnmarshalText([]byte(in)); err != nil || b.String() != want {
			t.Errorf("%q: got %v, %v; want %s", in, b, err, want)
		}
		var again byteSize
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%q does not come back: %d, %v", b, again, err)
		}
	}
	for _, bad := range []string{"", "much", "-1", "NaN", "1e300GiB", "5 apples", "0x10zz"} {
		var b byteSize
		if err := b.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is taken as %d", bad, b)
		}
	}
}

// The defaults of the flags are those of the configuration they fill.
func TestDefaults(t *testing.T) {
	out, err := dispatchIn(t, "config", "print")
	if err != nil {
		t.Fatal(err)
	}
	d := node.DefaultConfig()
	for name, want := range map[string]string{
		"engine": d.Engine, "precision": d.Precision, "kernel-level": d.KernelLevel, "body-limit": byteSize(d.BodyLimitBytes).String(),
		"drain-timeout": d.DrainTimeout.String(), "max-wait": d.MaxWait.String(), "request-timeout": d.RequestTimeout.String(),
		"echo-itl": d.EchoITL.String(),
	} {
		if !strings.Contains(out, name+": "+yamlScalar(want)+" ") {
			t.Errorf("%s is not %s by default:\n%s", name, want, out)
		}
	}
	if !strings.Contains(out, "max-running: 64 ") || d.MaxRunning != 64 || !strings.Contains(out, "max-queue: 1024 ") || d.MaxQueue != 1024 || !strings.Contains(out, "step-tokens: 512 ") || d.StepTokens != 512 {
		t.Error("the limits differ from the node's")
	}
}

// A configuration file of any content is read or refused as a mistake of usage.
func FuzzConfigFile(f *testing.F) {
	f.Add([]byte("http-port: 9001\nkv-cache-bytes: 512MiB\n"))
	f.Add([]byte("http-port: [1, 2]\nunknown: {a: b}\n"))
	f.Add([]byte("a: &a [x, x]\nb: [*a, *a]\n"))
	f.Add([]byte("? 1\n: 2\ndrain-timeout: 1e9\nmodel: 5\nlog: \n"))
	f.Add([]byte("\"\": x\n.: y\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		first, err := dispatchIn(t, "config", "print", "--config", path)
		var usage usageError
		if err != nil && !errors.As(err, &usage) {
			t.Fatalf("not a mistake of usage: %v", err)
		}
		if err != nil {
			return
		}
		if err := os.WriteFile(path, []byte(first), 0o644); err != nil {
			t.Fatal(err)
		}
		second, err := dispatchIn(t, "config", "print", "--config", path)
		if err != nil {
			t.Fatalf("what was printed is not read: %v\n%s", err, first)
		}
		if values(first) != values(second) {
			t.Errorf("printed\n%s\nreads back as\n%s", first, second)
		}
	})
}

// values strips the origins, and the secrets, which are not printed.
func values(printed string) string {
	var b strings.Builder
	for line := range strings.Lines(printed) {
		i := strings.LastIndex(line, "  # ")
		value := strings.TrimSpace(line[:max(i, 0)])
		if !strings.HasPrefix(value, "# ") && !strings.HasPrefix(value, "hf-token:") && !strings.HasPrefix(value, "api-key:") {
			b.WriteString(value + "\n")
		}
	}
	return b.String()
}
