package trace

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// columns are where the fields of a table are; -1 is nowhere.
type columns struct {
	time, input, output, model, session int
	names                               []string
}

// columnNames are the headers of the tables in the field, in lower case.
var columnNames = []struct {
	names []string
	set   func(c *columns, i int)
}{
	{[]string{"timestamp", "arrival_timestamp", "arrival_time"}, func(c *columns, i int) { c.time = i }},
	{[]string{"contexttokens", "request tokens", "input_length", "input_tokens", "num_prefill_tokens", "prompt_tokens"}, func(c *columns, i int) { c.input = i }},
	{[]string{"generatedtokens", "response tokens", "output_length", "output_tokens", "num_decode_tokens", "completion_tokens"}, func(c *columns, i int) { c.output = i }},
	{[]string{"model"}, func(c *columns, i int) { c.model = i }},
	{[]string{"session id", "session_id", "sessionid"}, func(c *columns, i int) { c.session = i }},
}

// findColumns reads a header.
func findColumns(header []string) (columns, error) {
	c := columns{-1, -1, -1, -1, -1, append([]string(nil), header...)}
	for i, h := range header {
		h = strings.ToLower(strings.TrimSpace(h))
		for _, k := range columnNames {
			for _, n := range k.names {
				if h == n {
					k.set(&c, i)
				}
			}
		}
	}
	for _, f := range []struct {
		name string
		i    int
	}{{"TIMESTAMP", c.time}, {"ContextTokens", c.input}, {"GeneratedTokens", c.output}} {
		if f.i < 0 {
			return c, fault(at{"line", 1}, f.name, "no such column in the header %s; this is neither JSON nor a table of requests (Azure's TIMESTAMP, ContextTokens, GeneratedTokens or BurstGPT's Timestamp, Request tokens, Response tokens)", clip(strings.Join(header, ",")))
		}
	}
	return c, nil
}

// readCSV reads a table. Times are seconds, or dates.
func readCSV(b *bufio.Reader, o Options, emit func(Request) bool) error {
	r := csv.NewReader(&bounded{r: b})
	r.ReuseRecord, r.FieldsPerRecord = true, -1
	var c columns
	var zero float64
	ord := order{options: o, sessions: map[string]*progress{}}
	for row := 0; ; row++ {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return csvFault(err)
		}
		if row == 0 {
			if c, err = findColumns(record); err != nil {
				return err
			}
			continue
		}
		n, _ := r.FieldPos(0)
		where := at{"line", n}
		q, seconds, err := c.request(record, where)
		if err != nil {
			return err
		}
		if row == 1 {
			zero = seconds
		}
		stamp := (seconds - zero) * 1000
		if err := ord.sorted(stamp, where); err != nil {
			return err
		}
		if !(stamp <= maxMillis && stamp >= -maxMillis) {
			return fault(where, c.names[c.time], "more than ten years from the first")
		}
		q.At = max(0, millis(stamp)) // unsorted rows before the first
		if q.BlockSize = o.BlockSize; q.BlockSize == 0 {
			q.BlockSize = DefaultBlockSize
		}
		if err := ord.place(&q, false, where); err != nil {
			return err
		}
		if !emit(q) {
			return nil
		}
	}
}

// csvFault names the line of a table's fault.
func csvFault(err error) error {
	var p *csv.ParseError
	if errors.As(err, &p) {
		return fault(at{"line", p.Line}, "", "%v", p.Err)
	}
	return fmt.Errorf("read a table: %w", err)
}

// request reads a row, and its time in seconds.
func (c *columns) request(record []string, where at) (q Request, seconds float64, err error) {
	cell := func(i int) string {
		if i < 0 || i >= len(record) {
			return ""
		}
		return strings.TrimSpace(record[i])
	}
	for _, f := range []struct {
		i, min int
		to     *int
	}{{c.input, 1, &q.Input}, {c.output, 0, &q.Output}} {
		n, err := strconv.Atoi(cell(f.i))
		if err != nil || n < f.min || n > MaxTokens {
			return q, 0, fault(where, c.names[f.i], "%q is no number of tokens within %d to %d", clip(cell(f.i)), f.min, MaxTokens)
		}
		*f.to = n
	}
	if q.Model, q.Session = strings.Clone(cell(c.model)), strings.Clone(cell(c.session)); len(q.Model) > maxName || len(q.Session) > maxName {
		return q, 0, fault(where, "", "a name of more than %d bytes", maxName)
	}
	seconds, ok := tableTime(cell(c.time))
	if !ok {
		return q, 0, fault(where, c.names[c.time], "%q is neither seconds nor a date such as 2023-11-16 18:15:46.68", clip(cell(c.time)))
	}
	return q, seconds, nil
}

// tableTime reads a time of a table: seconds, or a date.
func tableTime(s string) (seconds float64, ok bool) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return f, !math.IsNaN(f) && !math.IsInf(f, 0)
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04:05Z07:00", time.RFC3339, "2006-01-02T15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil { // fractions are read without being named
			return float64(t.Unix()) + float64(t.Nanosecond())/1e9, true
		}
	}
	return 0, false
}

// bounded fails when more than maxLineBytes come without the end of a line, which
// would otherwise be kept in memory.
type bounded struct {
	r       io.Reader
	without int
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if i := bytes.LastIndexByte(p[:n], '\n'); i >= 0 {
		b.without = n - i
	} else if b.without += n; b.without > maxLineBytes {
		return 0, fmt.Errorf("a line is longer than %d bytes", maxLineBytes)
	}
	return n, err
}
