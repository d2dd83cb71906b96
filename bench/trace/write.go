package trace

import (
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
)

// Writer writes requests to a file. Close ends the file, and must be called.
type Writer struct {
	format Format
	out    *bufio.Writer
	zip    *gzip.Writer
	table  *csv.Writer
	buf    []byte
}

// Write returns a writer of FormatDynamo to w.
func Write(w io.Writer) *Writer {
	return &Writer{format: FormatDynamo, out: bufio.NewWriterSize(w, 1<<16)}
}

// WriteAs returns a writer of the given format, compressed if zipped.
func WriteAs(w io.Writer, f Format, zipped bool) (*Writer, error) {
	t := &Writer{format: f}
	switch f {
	case FormatAuto:
		t.format = FormatDynamo
	case FormatDynamo, FormatMooncake, FormatCSV:
	default:
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Param: "format", Message: fmt.Sprintf("a trace cannot be written as %q; it can as mooncake, dynamo or csv", f)}
	}
	if zipped {
		t.zip = gzip.NewWriter(w)
		w = t.zip
	}
	t.out = bufio.NewWriterSize(w, 1<<16)
	if f == FormatCSV {
		t.table = csv.NewWriter(t.out)
		return t, t.table.Write([]string{"TIMESTAMP", "ContextTokens", "GeneratedTokens"})
	}
	return t, nil
}

// Request writes a request.
func (t *Writer) Request(q *Request) error {
	switch t.format {
	case FormatCSV:
		// The published tables have a date and seven decimals; where a trace has none
		// it begins with Unix time.
		stamp := time.Unix(0, 0).UTC().Add(q.At).Format("2006-01-02 15:04:05.0000000")
		return t.table.Write([]string{stamp, strconv.Itoa(q.Input), strconv.Itoa(q.Output)})
	case FormatMooncake:
		t.buf = appendMooncake(t.buf[:0], q)
	default:
		t.buf = AppendLine(t.buf[:0], q)
	}
	_, err := t.out.Write(t.buf)
	return err
}

// Close writes what is still held, and ends the compressed stream. The underlying
// writer stays open.
func (t *Writer) Close() error {
	var err error
	if t.table != nil {
		t.table.Flush()
		err = t.table.Error()
	}
	err = errors.Join(err, t.out.Flush())
	if t.zip != nil {
		err = errors.Join(err, t.zip.Close())
	}
	return err
}

// appendMooncake appends the line of a request with the fields that every tool of
// the field takes, times in whole milliseconds.
func appendMooncake(b []byte, q *Request) []byte {
	b = appendInt(b, `{"timestamp": `, int(q.At.Milliseconds()))
	b = appendInt(b, `, "input_length": `, q.Input)
	b = appendInt(b, `, "output_length": `, q.Output)
	b = append(b, `, "hash_ids": `...)
	b = appendHashes(b, q.Hashes, ", ")
	if q.Session != "" {
		b = appendText(b, `, "session_id": `, q.Session)
		if q.Turn > 0 {
			b = appendInt(b, `, "delay": `, int(q.Delay.Milliseconds()))
		}
	}
	if q.Priority != 0 {
		b = appendInt(b, `, "priority": `, q.Priority)
	}
	return append(b, "}\n"...)
}

// AppendLine appends the line of a request in FormatDynamo, its end included.
func AppendLine(b []byte, q *Request) []byte {
	b = appendMillis(append(b, `{"timestamp":`...), q.At)
	b = appendInt(b, `,"input_length":`, q.Input)
	b = appendInt(b, `,"output_length":`, q.Output)
	if len(q.Hashes) > 0 {
		b = append(b, `,"hash_ids":`...)
		b = appendHashes(b, q.Hashes, ",")
	}
	if q.BlockSize != DefaultBlockSize && q.BlockSize > 0 {
		b = appendInt(b, `,"block_size":`, q.BlockSize)
	}
	if q.Session != "" {
		b = appendText(b, `,"session_id":`, q.Session)
		b = appendInt(b, `,"turn":`, q.Turn)
	}
	if q.Delay > 0 {
		b = appendMillis(append(b, `,"delay":`...), q.Delay)
	}
	if q.ID != "" {
		b = appendText(b, `,"request_id":`, q.ID)
	}
	for i, w := range q.After {
		lead := ","
		if i == 0 {
			lead = `,"wait_for":[`
		}
		b = appendText(b, lead, w)
	}
	if len(q.After) > 0 {
		b = append(b, ']')
	}
	if q.Priority != 0 {
		b = appendInt(b, `,"priority":`, q.Priority)
	}
	if q.Model != "" {
		b = appendText(b, `,"model":`, q.Model)
	}
	if q.Choices > 1 {
		b = appendInt(b, `,"choices":`, q.Choices)
	}
	if q.Finish != "" {
		b = appendText(b, `,"finish":`, q.Finish)
	}
	if q.FirstToken > 0 {
		b = appendMillis(append(b, `,"ttft_ms":`...), q.FirstToken)
	}
	if q.Total > 0 {
		b = appendMillis(append(b, `,"e2e_ms":`...), q.Total)
	}
	return append(b, "}\n"...)
}

// appendMillis appends a time in ms with at most three decimals.
func appendMillis(b []byte, d time.Duration) []byte {
	micros := d.Microseconds()
	b = strconv.AppendInt(b, micros/1000, 10)
	if part := micros % 1000; part > 0 {
		b = append(b, '.', byte('0'+part/100), byte('0'+part/10%10), byte('0'+part%10))
		for b[len(b)-1] == '0' {
			b = b[:len(b)-1]
		}
	}
	return b
}

func appendInt(b []byte, lead string, n int) []byte {
	return strconv.AppendInt(append(b, lead...), int64(n), 10)
}

func appendHashes(b []byte, all []uint64, between string) []byte {
	b = append(b, '[')
	for i, h := range all {
		if i > 0 {
			b = append(b, between...)
		}
		b = strconv.AppendUint(b, h, 10)
	}
	return append(b, ']')
}

// appendText appends text as JSON; what is not UTF-8 in it is replaced.
func appendText(b []byte, lead, s string) []byte {
	b = append(b, lead...)
	b, _ = jsontext.AppendQuote(b, s) // the only error is about UTF-8, and repaired
	return b
}
