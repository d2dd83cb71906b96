package trace

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/dynamo-go/dynamo"
)

// Format is a form of trace files.
type Format string

// The formats.
const (
	// FormatAuto looks at the first bytes.
	FormatAuto Format = ""
	// FormatMooncake is JSON lines with the fields of the published traces and of
	// the tools that play them, or of Alibaba's Bailian traces; FormatDynamo is the
	// same with all of this package's fields. They are read alike.
	FormatMooncake Format = "mooncake"
	FormatDynamo   Format = "dynamo"
	// FormatDelta is FormatMooncake in which a later turn of a session says only what
	// is new in it: the prompt is all of the session before, answers included, and
	// that. What is read has whole prompts. It can be read only.
	FormatDelta Format = "mooncake-delta"
	// FormatCSV is a table with a header: that of the Azure LLM inference traces
	// (TIMESTAMP, ContextTokens, GeneratedTokens) or of BurstGPT (Timestamp in
	// seconds, Request tokens, Response tokens, Model, Session ID).
	FormatCSV Format = "csv"
	// FormatShareGPT is a JSON array of conversations, of whose text only the length
	// is kept. It can be read only.
	FormatShareGPT Format = "sharegpt"
)

// Options say how to read.
type Options struct {
	// Format is the file's; empty looks.
	Format Format
	// BlockSize holds where a line does not say its own. 0 is DefaultBlockSize for
	// files with hashes, and for ShareGPT, whose hashes are made.
	BlockSize int
	// Unsorted accepts lines in any order.
	Unsorted bool
	// Count returns the number of tokens of a text, for ShareGPT. Nil takes four
	// bytes for one.
	Count func(text string) int
}

// Read yields the requests of a file in its order. After an error, which names the
// line, nothing more comes. Nothing that is yielded is used again.
func Read(r io.Reader, o Options) iter.Seq2[Request, error] {
	return func(yield func(Request, error) bool) {
		if err := read(r, o, func(q Request) bool { return yield(q, nil) }); err != nil {
			yield(Request{}, err)
		}
	}
}

// read gives requests to emit until that returns false, the file ends or a fault
// ends it.
func read(r io.Reader, o Options, emit func(Request) bool) error {
	if o.BlockSize < 0 || o.BlockSize > MaxTokens {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Param: "block_size", Message: fmt.Sprintf("a block size of %d tokens is not possible; give 1 to %d", o.BlockSize, MaxTokens)}
	}
	b := bufio.NewReaderSize(r, 1<<16)
	if head, _ := b.Peek(2); bytes.Equal(head, []byte{0x1f, 0x8b}) { // a short file has no such head
		z, err := gzip.NewReader(b)
		if err != nil {
			return fmt.Errorf("read a gzip file: %w", err)
		}
		b = bufio.NewReaderSize(z, 1<<16)
	}
	if mark, _ := b.Peek(3); string(mark) == "\xef\xbb\xbf" {
		_, _ = b.Discard(3) // what was peeked is there
	}
	format, err := o.format(b)
	if err != nil {
		return err
	}
	switch format {
	case FormatCSV:
		return readCSV(b, o, emit)
	case FormatShareGPT:
		return readShareGPT(b, o, emit)
	}
	return readLines(b, o, emit)
}

// format returns the file's format.
func (o Options) format(b *bufio.Reader) (Format, error) {
	switch o.Format {
	case FormatMooncake, FormatDynamo, FormatDelta, FormatCSV, FormatShareGPT:
		return o.Format, nil
	case FormatAuto:
	default:
		return "", &dynamo.Error{Kind: dynamo.KindInvalid, Param: "format", Message: fmt.Sprintf("%q is no trace format; there are %s", o.Format, strings.Join(Formats(), ", "))}
	}
	for n := 1; ; n++ {
		head, err := b.Peek(n)
		if len(head) < n {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
				return "", fmt.Errorf("read a trace: %w", err)
			}
			return FormatMooncake, nil // empty, which every format may be
		}
		switch c := head[n-1]; c {
		case ' ', '\t', '\r', '\n':
		case '{':
			return FormatMooncake, nil
		case '[':
			return FormatShareGPT, nil
		default:
			return FormatCSV, nil
		}
	}
}

// Formats lists the names of the formats that can be read.
func Formats() []string {
	return []string{string(FormatMooncake), string(FormatDynamo), string(FormatDelta), string(FormatCSV), string(FormatShareGPT)}
}
