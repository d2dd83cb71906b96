package trace

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// line is a request as it stands in a file. Fields that are not listed are passed
// over, so that none can pass through a conversion.
type line struct {
	Timestamp   *float64 `json:"timestamp,omitempty"`
	CreatedTime *float64 `json:"created_time,omitempty"`
	Input       *int64   `json:"input_length"`
	Output      *int64   `json:"output_length"`
	Hashes      hashList `json:"hash_ids,omitempty"`
	BlockSize   *int64   `json:"block_size,omitempty"`
	Session     name     `json:"session_id,omitempty"`
	ChatID      name     `json:"chat_id,omitempty"`
	Parent      name     `json:"parent_chat_id,omitempty"`
	Turn        *int64   `json:"turn,omitempty"`
	Delay       *float64 `json:"delay,omitempty"`
	DelayMS     *float64 `json:"delay_ms,omitempty"`
	ToolWait    *float64 `json:"tool_wait_ms,omitempty"`
	ID          name     `json:"request_id,omitempty"`
	WaitFor     []name   `json:"wait_for,omitempty"`
	Priority    *int64   `json:"priority,omitempty"`
	Strict      *int64   `json:"strict_priority,omitempty"`
	Model       name     `json:"model,omitempty"`
	Choices     int64    `json:"choices,omitempty"`
	Finish      name     `json:"finish,omitempty"`
	FirstToken  *float64 `json:"ttft_ms,omitempty"`
	Total       *float64 `json:"e2e_ms,omitempty"`

	times  [4]float64 // what quick points the fields above to
	counts [5]int64
}

// hashList is a list of numbers of 64 bits, signed or not. It is read as a whole,
// since traces consist of little else.
type hashList []uint64

// UnmarshalJSONFrom reads a list.
func (l *hashList) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	if v.Kind() == 'n' {
		return nil
	}
	if v.Kind() != '[' {
		return fmt.Errorf("%s is not a list of numbers", clip(string(v)))
	}
	rest := bytes.TrimSpace(v[1 : len(v)-1])
	*l = make(hashList, 0, 1+bytes.Count(rest, comma))
	rest = l.digits(rest)
	for len(rest) > 0 {
		item, after, _ := bytes.Cut(rest, comma)
		h, err := parseHash(bytes.TrimSpace(item))
		if err != nil {
			return err
		}
		*l = append(*l, h)
		rest = after
	}
	return nil
}

// digits takes the numbers off the front of a list that are plain ones of at most 18
// digits, and returns the rest, which begins with another kind or is empty.
func (l *hashList) digits(list []byte) []byte {
	for i := 0; ; i++ {
		for i < len(list) && list[i] == ' ' {
			i++
		}
		n, begin := uint64(0), i
		for i < len(list) && list[i]-'0' <= 9 {
			n = n*10 + uint64(list[i]-'0')
			i++
		}
		if i == begin || i == len(list) || list[i] != ',' || i-begin > 18 || list[begin] == '0' && i > begin+1 {
			return list[begin:]
		}
		*l = append(*l, n)
	}
}

var comma = []byte{','}

// parseHash reads a number.
func parseHash(item []byte) (uint64, error) {
	if len(item) > 0 && len(item) < 19 { // no overflow is possible
		n := uint64(0)
		for i, c := range item {
			if c < '0' || c > '9' {
				break
			}
			if n = n*10 + uint64(c-'0'); i == len(item)-1 {
				return n, nil
			}
		}
	}
	if u, err := strconv.ParseUint(string(item), 10, 64); err == nil {
		return u, nil
	}
	n, err := strconv.ParseInt(string(item), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not an integer of 64 bits", clip(string(item)))
	}
	return uint64(n), nil
}

// name is a text or a number that names something.
type name string

// UnmarshalJSONFrom reads a name.
func (n *name) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	switch v.Kind() {
	case '"':
		b, err := jsontext.AppendUnquote(nil, v)
		if err != nil {
			return err
		}
		*n = name(b)
	case '0':
		*n = name(v)
	case 'n':
		*n = ""
	default:
		return fmt.Errorf("%s is neither text nor a number", clip(string(v)))
	}
	if len(*n) > maxName {
		return fmt.Errorf("it has %d bytes; the limit is %d", len(*n), maxName)
	}
	return nil
}

// clip shortens what an error quotes.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// order checks and completes what the lines of a file say of their place in it.
type order struct {
	options  Options
	last     float64 // ms of the last line with a timestamp
	lastAt   at
	sessions map[string]*progress
	chats    map[string]string // Bailian: session of a request's name
}

// progress is how far a session has come.
type progress struct {
	at       time.Duration // of its last request
	turns    int           // so far
	segments []segment     // of its last prompt and answer, where lines hold what is new
	tokens   int
}

// readLines reads JSON lines.
func readLines(b *bufio.Reader, o Options, emit func(Request) bool) error {
	ord := order{options: o, sessions: map[string]*progress{}, chats: map[string]string{}}
	var text []byte
	for where := (at{"line", 1}); ; where.n++ {
		var err error
		text, err = nextLine(b, text[:0], where)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		q, err := ord.parse(text, where)
		if err != nil {
			return err
		}
		if !emit(q) {
			return nil
		}
	}
}

// nextLine appends the next line to buf, without its end. It returns io.EOF when
// there is none.
func nextLine(b *bufio.Reader, buf []byte, where at) ([]byte, error) {
	for {
		part, err := b.ReadSlice('\n')
		buf = append(buf, part...)
		if len(buf) > maxLineBytes {
			return buf, fault(where, "", "longer than %d bytes, which no request is", maxLineBytes)
		}
		switch {
		case err == nil:
			return buf[:len(buf)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(buf) > 0:
			return buf, nil
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		default:
			return nil, fmt.Errorf("%v: %w", where, err)
		}
	}
}

// parse turns a line into a request.
func (ord *order) parse(text []byte, where at) (Request, error) {
	var l line
	if !l.quick(text) {
		l = line{}
		if err := json.Unmarshal(text, &l, jsontext.AllowDuplicateNames(false), jsontext.AllowInvalidUTF8(false)); err != nil {
			return Request{}, jsonFault(where, err)
		}
	}
	q := Request{
		Session: string(l.Session), ID: string(l.ID), Model: string(l.Model), Finish: string(l.Finish),
	}
	o := ord.options
	if l.Parent != "" {
		ord.bailian(&l, &q, &o)
	}
	for _, h := range l.WaitFor {
		q.After = append(q.After, string(h))
	}
	if len(l.Hashes) > 0 {
		q.Hashes = l.Hashes
	}
	if err := l.numbers(&q, o, where); err != nil {
		return q, err
	}
	if err := ord.times(&l, &q, where); err != nil {
		return q, err
	}
	return q, ord.place(&q, l.Turn != nil, where)
}

// bailian reads what is different in Alibaba's Bailian traces: seconds, blocks of
// 16, turns from 1, and sessions that are told by each request's name and that of
// the one before it.
func (ord *order) bailian(l *line, q *Request, o *Options) {
	if l.Timestamp != nil {
		*l.Timestamp *= 1000
	}
	if o.BlockSize == 0 {
		o.BlockSize = 16
	}
	if l.Turn != nil && *l.Turn > 0 {
		*l.Turn--
	}
	q.ID = string(l.ChatID)
	if session, known := ord.chats[string(l.Parent)]; known {
		q.Session = session
	} else {
		q.Session = q.ID
	}
	if len(ord.chats) < maxSessions {
		ord.chats[q.ID] = q.Session
	}
}

// numbers checks and copies the lengths.
func (l *line) numbers(q *Request, o Options, where at) error {
	for _, f := range []struct {
		field    string
		from     *int64
		to       *int
		min, max int64
		needed   bool
	}{
		{"input_length", l.Input, &q.Input, 1, MaxTokens, true},
		{"output_length", l.Output, &q.Output, 0, MaxTokens, true},
		{"block_size", l.BlockSize, &q.BlockSize, 1, MaxTokens, false},
		{"turn", l.Turn, &q.Turn, 0, math.MaxInt32, false},
		{"choices", &l.Choices, &q.Choices, 0, 1024, false},
		{"strict_priority", l.Strict, &q.Priority, math.MinInt32, math.MaxInt32, false},
		{"priority", l.Priority, &q.Priority, math.MinInt32, math.MaxInt32, false},
	} {
		if f.from == nil {
			if f.needed {
				return fault(where, f.field, "it is missing")
			}
			continue
		}
		if *f.from < f.min || *f.from > f.max {
			return fault(where, f.field, "%d is not within %d to %d", *f.from, f.min, f.max)
		}
		*f.to = int(*f.from)
	}
	if q.BlockSize == 0 {
		q.BlockSize = o.BlockSize
	}
	if q.BlockSize == 0 {
		q.BlockSize = DefaultBlockSize
	}
	if n := len(q.Hashes); n > q.Blocks() || n > 0 && n < q.Input/q.BlockSize {
		return fault(where, "hash_ids", "%d hashes do not fit %d tokens in blocks of %d, which are %d to %d; if the blocks have another size, say so (--block-size)", n, q.Input, q.BlockSize, q.Input/q.BlockSize, q.Blocks())
	}
	if len(q.After) > maxWaits {
		return fault(where, "wait_for", "%d requests; the limit is %d", len(q.After), maxWaits)
	}
	return nil
}

// times checks and copies the times.
func (ord *order) times(l *line, q *Request, where at) error {
	stamp := first(l.Timestamp, l.CreatedTime)
	delay := first(l.Delay, l.DelayMS, l.ToolWait)
	for _, f := range []struct {
		field string
		from  *float64
		to    *time.Duration
	}{{"timestamp", stamp, &q.At}, {"delay", delay, &q.Delay}, {"ttft_ms", l.FirstToken, &q.FirstToken}, {"e2e_ms", l.Total, &q.Total}} {
		if f.from == nil {
			continue
		}
		if !(*f.from >= 0 && *f.from <= maxMillis) {
			return fault(where, f.field, "%v ms is not within 0 to ten years", *f.from)
		}
		*f.to = millis(*f.from)
	}
	if stamp == nil {
		return ord.follow(q, delay != nil, where)
	}
	return ord.sorted(*stamp, where)
}

// sorted checks that times do not go back.
func (ord *order) sorted(stamp float64, where at) error {
	if stamp < ord.last && !ord.options.Unsorted {
		return unsorted(where, ord.lastAt, stamp, ord.last)
	}
	ord.last, ord.lastAt = stamp, where
	return nil
}

// follow gives a turn without a timestamp the time of the turn before it and its
// delay: the answer in between takes what it takes.
func (ord *order) follow(q *Request, delayed bool, where at) error {
	before := ord.sessions[q.Session]
	if q.Session == "" || before == nil || !delayed {
		return fault(where, "timestamp", "it is missing; only a later turn of a session, with a delay, may go without (of the first %d sessions)", maxSessions)
	}
	q.At = before.at + q.Delay
	return nil
}

// place notes how far a session has come, and counts its turns where the file does
// not. Beyond maxSessions nothing is noted: further sessions' requests are all
// first ones, and a fault if that cannot be.
func (ord *order) place(q *Request, counted bool, where at) error {
	delta := ord.options.Format == FormatDelta
	if q.Session == "" {
		return nil
	}
	p := ord.sessions[q.Session]
	if p == nil {
		if len(ord.sessions) >= maxSessions {
			if delta {
				return fault(where, "session_id", "more than %d sessions; cut the trace into parts", maxSessions)
			}
			return nil
		}
		p = new(progress)
		ord.sessions[q.Session] = p
	}
	if !counted {
		q.Turn = p.turns
	}
	p.turns, p.at = q.Turn+1, q.At
	if delta {
		return p.extend(q, where)
	}
	return nil
}

// extend puts what was said before in front of a prompt.
func (p *progress) extend(q *Request, where at) error {
	own := mix(q.own(saltDelta), uint64(q.Turn))
	for i, h := range q.Hashes {
		p.segments = append(p.segments, segment{h, q.blockTokens(i)})
	}
	known := min(q.Input, len(q.Hashes)*q.BlockSize)
	if q.Input > known {
		p.segments = append(p.segments, segment{mix(own, 0), q.Input - known})
	}
	if p.tokens+q.Input > MaxTokens || len(p.segments) > maxLineBytes/16 {
		return fault(where, "input_length", "the session has come to more than %d tokens", MaxTokens)
	}
	p.tokens += q.Input
	q.Input = p.tokens
	q.Hashes = blockHashes(p.segments, p.tokens, q.BlockSize)
	if q.Output > 0 {
		p.segments = append(p.segments, segment{mix(own, 1), q.Output})
		p.tokens += q.Output
	}
	return nil
}

// first returns the first pointer that is there.
func first(all ...*float64) *float64 {
	for _, p := range all {
		if p != nil {
			return p
		}
	}
	return nil
}

// millis is a time in milliseconds as a duration, to the microsecond.
func millis(ms float64) time.Duration {
	return time.Duration(math.Round(ms*1000)) * time.Microsecond
}
