package trace

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// conversation is an element of a ShareGPT file.
type conversation struct {
	Turns []struct {
		From  string `json:"from"`
		Value string `json:"value"`
	} `json:"conversations"`
}

// readShareGPT reads conversations: each becomes a session whose turns hold what
// was said before. The files know no times; every session comes at 0 and its
// turns follow at once.
func readShareGPT(b *bufio.Reader, o Options, emit func(Request) bool) error {
	count := o.Count
	if count == nil {
		count = func(text string) int { return (len(text) + 3) / 4 }
	}
	if o.BlockSize == 0 {
		o.BlockSize = DefaultBlockSize
	}
	source := &metered{r: b}
	d := jsontext.NewDecoder(source, jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
	where := at{"item", 0}
	if t, err := d.ReadToken(); err != nil && !errors.Is(err, io.EOF) {
		return jsonFault(where, err)
	} else if err == nil && t.Kind() != '[' {
		return fault(where, "", "the file is not a JSON array of conversations")
	} else if err != nil {
		return nil
	}
	for where.n = 1; d.PeekKind() != ']'; where.n++ {
		source.left = maxLineBytes
		var c conversation
		if err := json.UnmarshalDecode(d, &c); err != nil {
			if errors.Is(err, errLong) || errors.Is(err, io.ErrUnexpectedEOF) {
				return fault(where, "", "%v", err)
			}
			return jsonFault(where, err)
		}
		if !c.emit(where.n, o.BlockSize, count, emit) {
			return nil
		}
	}
	_, err := d.ReadToken()
	if err != nil {
		return jsonFault(where, err)
	}
	return nil
}

// emit makes requests of a conversation: one for each answer that has a prompt.
func (c *conversation) emit(n, blockSize int, count func(string) int, emit func(Request) bool) bool {
	session := strconv.Itoa(n)
	key := mix(saltShareGPT, uint64(n))
	before, turn := 0, 0
	for _, t := range c.Turns {
		tokens := count(t.Value)
		if (t.From == "gpt" || t.From == "assistant" || t.From == "chatgpt" || t.From == "bing" || t.From == "bard") && before > 0 && before <= MaxTokens {
			q := Request{Input: before, Output: tokens, BlockSize: blockSize, Session: session, Turn: turn}
			for i := range before / blockSize {
				q.Hashes = append(q.Hashes, mix(key, uint64(i)))
			}
			if !emit(q) {
				return false
			}
			turn++
		}
		before += tokens
	}
	return true
}

// metered fails when an element takes more than is left to it.
type metered struct {
	r    io.Reader
	left int
}

var errLong = fmt.Errorf("longer than %d bytes", maxLineBytes)

// Read implements io.Reader.
func (m *metered) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.left -= n; m.left < -(1 << 20) { // what the decoder reads ahead
		return 0, errLong
	}
	return n, err
}
