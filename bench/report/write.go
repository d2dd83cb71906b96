package report

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench"
)

// The files of a report.
const (
	ResultFile  = "result.json"
	CSVFile     = "result.csv"
	PageFile    = "report.html"
	RecordsFile = "records.jsonl" // written by the run, read by comparisons
)

// Write writes the report of r into dir, which it makes: result.json, result.csv,
// report.html and each plot as SVG and as PNG. A file appears when it is whole and
// replaces one of its name; plots of an earlier report that this one lacks stay.
func Write(dir string, r *bench.Result) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	text, err := Marshal(r)
	if err != nil {
		return err
	}
	var csv, html bytes.Buffer
	if err := errors.Join(WriteCSV(&csv, r), WriteHTML(&html, r)); err != nil {
		return err
	}
	files := map[string][]byte{ResultFile: text, CSVFile: csv.Bytes(), PageFile: html.Bytes()}
	for _, c := range slices.Concat(latencyPlots(r), seriesPlots(r), lengthPlots(r)) {
		c.addFiles(files, c.id)
	}
	return writeFiles(dir, files)
}

// WritePlots writes each plot of c as SVG and as PNG into dir, which it makes. Their
// names begin with "compare-", so that dir may be that of a report.
func (c *Comparison) WritePlots(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	files := map[string][]byte{}
	for _, p := range slices.Concat(c.ratioPlots(), c.distributionPlots(), c.timePlots()) {
		p.addFiles(files, "compare-"+p.id)
	}
	return writeFiles(dir, files)
}

// addFiles adds the chart as files of its own.
func (c *chart) addFiles(files map[string][]byte, name string) {
	files[name+".svg"] = []byte(c.svg(true) + "\n")
	files[name+".png"] = c.png()
}

func writeFiles(dir string, files map[string][]byte) error {
	for name, content := range files {
		if err := replace(filepath.Join(dir, name), content); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	return nil
}

// replace writes a file under another name and moves it to its own.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // it is of no use
	}
	return err
}

// Run is a result that was read back. Records are its requests, if they lay beside it.
type Run struct {
	Name    string
	Result  *bench.Result
	Records []bench.Record
	// Note says why records that are there are not used; empty if nothing is wrong.
	Note string
}

// Open reads a report: path is its directory, or its result.json.
func Open(path string) (*Run, error) {
	dir, file := filepath.Split(path)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		dir, file = path, ResultFile
	}
	f, err := os.Open(filepath.Join(dir, file))
	if errors.Is(err, os.ErrNotExist) {
		return nil, &dynamo.Error{Kind: dynamo.KindNotFound, Message: fmt.Sprintf("%s holds no %s; name a directory that dynamo bench --output wrote", path, ResultFile), Err: err}
	}
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxResultBytes+1))
	_ = f.Close() // it was only read
	if err != nil {
		return nil, err
	}
	if len(text) > maxResultBytes {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("%s is larger than %d MiB, which no result is", path, maxResultBytes>>20)}
	}
	run := &Run{Name: filepath.Clean(path)}
	if run.Result, err = Unmarshal(text); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	run.records(filepath.Join(dir, RecordsFile))
	return run, nil
}

// records reads the records at path. Without them, or where they are not those of the
// result, a comparison has its histograms.
func (run *Run) records(path string) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		run.Note = err.Error()
		return
	}
	defer func() { _ = f.Close() }() // it was only read
	all, err := readRecords(f)
	if err != nil {
		run.Note = fmt.Sprintf("%s: %v", path, err)
		return
	}
	whole := 0
	for i := range all {
		if all[i].Whole() {
			whole++
		}
	}
	if whole != run.Result.Requests {
		run.Note = fmt.Sprintf("%s has %d whole answers, the result %d: it is of another run", path, whole, run.Result.Requests)
		return
	}
	run.Records = all
}

func readRecords(in io.Reader) ([]bench.Record, error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), maxRecordBytes)
	var out []bench.Record
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if len(out) == maxRecords {
			return nil, &dynamo.Error{Kind: dynamo.KindExhausted, Message: fmt.Sprintf("more than %d records", maxRecords)}
		}
		var r bench.Record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("line %d is not a record", n), Err: err}
		}
		r.Gaps, r.Detail = nil, "" // not compared, and large
		out = append(out, r)
	}
	return out, lines.Err()
}
