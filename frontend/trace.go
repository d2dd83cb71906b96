package frontend

import (
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench/trace"
	"github.com/dynamo-go/dynamo/obs"
)

// RecorderConfig says where and how requests are recorded.
type RecorderConfig struct {
	// Path is the file that is written; full ones are kept beside it, compressed, as
	// Path.000001.gz and so on. No default. (--request-trace)
	Path string
	// Key salts the hashes: recordings under one key can be joined, and without it
	// no hash leads back to a prompt. Nil makes a random one that nobody keeps; else
	// at least 16 bytes. (--request-trace-key-file)
	Key []byte
	// BlockSize is the number of tokens of a block that gets a hash; 0 is the model's
	// own. Default 0. (--request-trace-block-size)
	BlockSize int
	// RollBytes is the size at which a file is full, Files how many full ones are
	// kept; older ones are removed. Defaults 256 MiB and 16. (--request-trace-roll,
	// --request-trace-files)
	RollBytes int64
	Files     int
	// Logger receives the log; nil discards it.
	Logger *slog.Logger
	// Registry receives the metrics; nil makes one.
	Registry *obs.Registry
}

// DefaultRecorderConfig returns the defaults.
func DefaultRecorderConfig() RecorderConfig { return RecorderConfig{RollBytes: 256 << 20, Files: 16} }

// Validate reports all faults at once.
func (c *RecorderConfig) Validate() error {
	var faults []error
	if c.Path == "" {
		faults = append(faults, errors.New("--request-trace needs a file"))
	}
	if c.Key != nil && len(c.Key) < minRecordKey {
		faults = append(faults, fmt.Errorf("--request-trace-key-file: the key has %d bytes; it needs %d or more, at random", len(c.Key), minRecordKey))
	}
	if c.BlockSize < 0 || c.BlockSize > trace.MaxTokens {
		faults = append(faults, fmt.Errorf("--request-trace-block-size is %d; it must be 0 (the model's) or more", c.BlockSize))
	}
	if c.RollBytes < minRecordRoll {
		faults = append(faults, fmt.Errorf("--request-trace-roll is %d; it must be %d bytes or more", c.RollBytes, minRecordRoll))
	}
	if c.Files < 0 || c.Files > maxRecordFiles {
		faults = append(faults, fmt.Errorf("--request-trace-files is %d; it must be within 0 and %d", c.Files, maxRecordFiles))
	}
	return errors.Join(faults...)
}

// Recorder writes a line for each request that was given to an engine: times,
// lengths and keyed hashes of the prompt's blocks, never text or ids (see package
// bench/trace for the format). A request is never held up by it: what the recorder
// cannot take at once is dropped and counted.
//
// Goroutines: Run's caller writes; one more compresses a full file, and ends before
// Run does.
type Recorder struct {
	config  RecorderConfig
	log     *slog.Logger
	start   time.Time
	key     [recordKey]byte
	queue   chan *recorded
	waiting atomic.Int64 // tokens in the queue

	written, crowded, failed prometheus.Counter

	// What follows is Run's.
	out      recordFile
	sessions map[string]recordedSession
	buf      []byte
	line     []byte
	troubled time.Time // when an error was last logged
}

// recorded is a request on its way to the file.
type recorded struct {
	request trace.Request
	arrived time.Time
	ids     []dynamo.TokenID // of the prompt; become hashes
	root    dynamo.CacheRoot
	session string // as the client named it, with its tenant; becomes a hash
}

// recordedSession is what is known of a session.
type recordedSession struct {
	turns int
	end   time.Time
}

// NewRecorder returns a recorder, which has opened its file and started nothing.
func NewRecorder(c RecorderConfig) (*Recorder, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure the recorder: %w", err)
	}
	if c.Registry == nil {
		c.Registry = obs.NewRegistry()
	}
	requests := c.Registry.Counters("dynamo_frontend_recorded_requests_total", "Requests for the request trace, by what became of them: written, crowded (dropped, because the recorder was behind) or failed (dropped, because the file could not be written).", "outcome")
	r := &Recorder{
		config: c, log: obs.For(c.Logger, "frontend"), start: time.Now(), queue: make(chan *recorded, maxRecordQueue),
		written: requests.WithLabelValues("written"), crowded: requests.WithLabelValues("crowded"), failed: requests.WithLabelValues("failed"),
		sessions: map[string]recordedSession{},
	}
	key := c.Key
	if key == nil {
		key = make([]byte, sha256.Size)
		_, _ = rand.Read(key) // never fails
	}
	m := hmac.New(sha256.New, key)
	m.Write([]byte("dynamo request trace 1")) // a hash takes everything
	copy(r.key[:], m.Sum(nil))
	r.out = recordFile{path: c.Path, roll: c.RollBytes, keep: c.Files, packed: make(chan error, 1)}
	if err := r.out.open(); err != nil {
		return nil, fmt.Errorf("--request-trace: %w", err)
	}
	return r, nil
}

// Run writes until ctx ends, then what is still queued. It returns why the file
// could not be completed. It is called once; nil is a recorder that has nothing to
// do.
func (r *Recorder) Run(ctx context.Context) error {
	if r == nil {
		return nil
	}
	r.out.pack()
	flush := time.NewTicker(recordFlush)
	defer flush.Stop()
	for ctx.Err() == nil {
		select {
		case q := <-r.queue:
			r.write(q)
		case <-flush.C:
			r.flush()
		case err := <-r.out.packed:
			r.packed(err)
		case <-ctx.Done():
		}
	}
	for {
		select {
		case q := <-r.queue:
			r.write(q)
			continue
		default:
		}
		r.flush()
		return r.out.close()
	}
}

// offer gives the recorder a request, if it can take it now.
func (r *Recorder) offer(q *recorded) {
	n := int64(len(q.ids))
	if r.waiting.Add(n) <= maxRecordTokens {
		select {
		case r.queue <- q:
			return
		default:
		}
	}
	r.waiting.Add(-n)
	r.crowded.Inc()
}

// write writes a request.
func (r *Recorder) write(q *recorded) {
	r.waiting.Add(-int64(len(q.ids)))
	t := &q.request
	t.At = max(0, q.arrived.Sub(r.start))
	t.Hashes = r.hashes(q, t.BlockSize)
	if q.session != "" {
		r.follow(q)
	}
	r.line = trace.AppendLine(r.line[:0], t)
	if r.out.packing && r.out.crowded(len(r.line)) {
		// The queue fills meanwhile; this is slower than any compression.
		r.packed(<-r.out.packed)
	}
	if r.out.due(len(r.line)) {
		r.flush()
		r.trouble(r.out.turn())
	}
	if err := r.out.add(r.line); err != nil {
		r.trouble(err)
		r.failed.Inc()
		return
	}
	if len(r.out.buf) >= recordBuffer {
		r.flush()
	}
}

// packed takes note of the end of a compression.
func (r *Recorder) packed(err error) {
	r.out.packing = false
	r.trouble(err)
}

// flush hands the lines so far to the system, and counts them.
func (r *Recorder) flush() {
	n, err := r.out.flush()
	if err != nil {
		r.trouble(err)
		r.failed.Add(float64(n))
		return
	}
	r.written.Add(float64(n))
}

// trouble logs an error, if none was logged lately.
func (r *Recorder) trouble(err error) {
	if err == nil || time.Since(r.troubled) < recordComplain {
		return
	}
	r.troubled = time.Now()
	r.log.Warn("the request trace cannot be written; requests are left out of it", obs.KeyError, err)
}

// hashes returns a keyed hash for each full block of the prompt, which covers the
// block and everything before it, and the cache it may be found in.
func (r *Recorder) hashes(q *recorded, size int) []uint64 {
	// Half of each digest is carried on and stays secret, the other half tells of the
	// block: who does not know the key knows no beginning of the chain.
	hashes := make([]uint64, 0, len(q.ids)/size)
	chain := sha256.Sum256(binary.LittleEndian.AppendUint64(append(r.buf[:0], r.key[:]...), uint64(q.root)))
	for ids := q.ids; len(ids) >= size; ids = ids[size:] {
		b := append(r.buf[:0], chain[:recordKey]...)
		for _, id := range ids[:size] {
			b = binary.LittleEndian.AppendUint32(b, uint32(id))
		}
		chain, r.buf = sha256.Sum256(b), b
		hashes = append(hashes, binary.LittleEndian.Uint64(chain[recordKey:]))
	}
	return hashes
}

// follow places a request in its session.
func (r *Recorder) follow(q *recorded) {
	m := hmac.New(sha256.New, r.key[:])
	m.Write([]byte(q.session)) // as above
	t := &q.request
	t.Session = hex.EncodeToString(m.Sum(nil)[:8])
	s, known := r.sessions[t.Session]
	if !known && len(r.sessions) >= maxRecordSessions {
		clear(r.sessions)
	}
	if known {
		t.Turn, t.Delay = s.turns, max(0, q.arrived.Sub(s.end))
	}
	r.sessions[t.Session] = recordedSession{t.Turn + 1, q.arrived.Add(t.Total)}
}

// record gives the recorder the prompts that were generated for. err is why there
// was no answer, or not a whole one.
func (g *generation) record(r *Recorder, err error) {
	total := time.Since(g.arrived)
	session := g.r.Header.Get("X-Session-Id")
	if q := g.params.Routing; session == "" && q != nil {
		session = q.Session
	}
	if len(session) > maxRequestID {
		session = session[:maxRequestID]
	}
	if session != "" {
		session = g.tenant + "\x00" + session
	}
	for i := range g.prompts {
		p := &g.prompts[i]
		q := &recorded{arrived: g.arrived, ids: p.ids, root: p.request.Root, session: session}
		q.request = trace.Request{
			Input: max(1, len(p.ids)), Priority: p.request.Priority, Model: g.label, Choices: len(p.texter.choices), Total: total,
			BlockSize: recordBlock(r.config.BlockSize, g.model.Card.BlockSize), FirstToken: g.firstToken,
		}
		for c := range p.texter.choices {
			q.request.Output += p.texter.choices[c].count
		}
		q.request.Finish = p.texter.choices[0].piece.Finish.String()
		if err == nil {
			err = g.failure
		}
		if err != nil {
			q.request.Finish = dynamo.KindOf(err).String()
		}
		r.offer(q)
	}
}

// recordBlock returns the size of blocks: what is configured, the model's, or, of
// an engine that has none, that of most others.
func recordBlock(configured, model int) int {
	const usual = 16
	if configured > 0 {
		return configured
	}
	if model > 0 {
		return model
	}
	return usual
}

// recordFile is the file that is written, with the full ones beside it.
type recordFile struct {
	path string
	roll int64
	keep int

	file    *os.File
	buf     []byte
	lines   int // in buf
	size    int64
	number  int    // of the last full file
	last    string // full file that waits to be compressed
	packing bool
	packed  chan error // from the goroutine that compresses
}

// open begins a file. What is there from another run is kept as a full one: its
// times count from another start, and its hashes have another key.
func (f *recordFile) open() error {
	full, err := f.full()
	if err != nil {
		return err
	}
	for _, name := range full {
		n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(name, f.path+"."), ".gz")) // full found a number there
		f.number = max(f.number, n)
	}
	if info, err := os.Stat(f.path); err == nil && info.Size() > 0 {
		f.number++
		name := f.name(f.number)
		if err := os.Rename(f.path, name); err != nil {
			return err
		}
		f.last = name
	}
	f.file, err = os.OpenFile(f.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	f.size = 0
	return err
}

// name is that of a full file before it is compressed.
func (f *recordFile) name(n int) string { return fmt.Sprintf("%s.%06d", f.path, n) }

// full lists the full files, oldest first.
func (f *recordFile) full() ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(f.path))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), filepath.Base(f.path)+".")
		digits := strings.TrimSuffix(rest, ".gz")
		if ours && len(digits) >= 6 && strings.Trim(digits, "0123456789") == "" {
			names = append(names, f.path+"."+rest)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		a, b = strings.TrimSuffix(a, ".gz"), strings.TrimSuffix(b, ".gz")
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	return names, nil
}

// due says whether the next file has to be begun before n bytes are added. Not while
// the last full one is being compressed.
func (f *recordFile) due(n int) bool {
	return f.file == nil || f.size > 0 && f.size+int64(n) > f.roll && !f.packing
}

// crowded says whether n bytes are too many for a file that cannot be ended yet: it
// may grow to twice its size.
func (f *recordFile) crowded(n int) bool { return f.size > 0 && f.size+int64(n) > 2*f.roll }

// add adds a line.
func (f *recordFile) add(line []byte) error {
	if f.file == nil {
		return errors.New("no file is open")
	}
	f.buf = append(f.buf, line...)
	f.size += int64(len(line))
	f.lines++
	return nil
}

// flush hands the lines so far to the system, and returns how many there were. What
// it does not take is gone: the buffer stays bounded.
func (f *recordFile) flush() (lines int, err error) {
	if f.lines == 0 {
		return 0, nil
	}
	_, err = f.file.Write(f.buf)
	lines, f.buf, f.lines = f.lines, f.buf[:0], 0
	return lines, err
}

// turn ends the file, which has been flushed, and begins the next.
func (f *recordFile) turn() error {
	var err error
	if f.file != nil {
		err = f.file.Close()
		f.file = nil
	}
	err = errors.Join(err, f.open())
	f.pack()
	return err
}

// pack begins to compress the last full file, and to remove the oldest ones.
func (f *recordFile) pack() {
	if f.packing || f.last == "" {
		return
	}
	name := f.last
	f.packing, f.last = true, ""
	go func() { f.packed <- errors.Join(compress(name), f.prune()) }()
}

func (f *recordFile) prune() error {
	names, err := f.full()
	for _, n := range names[:max(0, len(names)-f.keep)] {
		if e := os.Remove(n); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// close ends the file, once the last full one is compressed.
func (f *recordFile) close() error {
	var err error
	if f.packing {
		err = <-f.packed
	}
	if f.file == nil {
		return err
	}
	return errors.Join(err, f.file.Close())
}

// compress replaces a file by its compressed form.
func compress(name string) (err error) {
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(name+".gz.tmp", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	err = errors.Join(err, z.Close(), out.Close())
	if err == nil {
		err = os.Rename(out.Name(), name+".gz")
	}
	if err != nil {
		return errors.Join(err, os.Remove(out.Name()))
	}
	return os.Remove(name)
}
