package hub

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sync/errgroup"

	"github.com/dynamo-go/dynamo"
)

// A file in progress is NAME.part, and beside it lies NAME.part.json: which
// bytes of each piece have come, and of what.
const (
	partSuffix  = ".part"
	stateSuffix = ".part.json"
)

// partFile is what a download writes into.
type partFile interface {
	io.WriterAt
	io.Closer
	Truncate(size int64) error
}

func openPartFile(path string) (partFile, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
}

// state is the resume record.
type state struct {
	Digest string  `json:"digest"`
	Size   int64   `json:"size"`
	Piece  int64   `json:"piece"`
	Done   []int64 `json:"done"` // bytes of each piece
}

// transfer is one file on its way.
type transfer struct {
	remoteFile
	path string // without suffix
	out  partFile
	prog *progress
	mu   struct {
		sync.Mutex
		state state
		saved time.Time
		// carrier is the piece whose request carries the whole file, because the
		// server ignores ranges; the other pieces stand back. -1 is none.
		carrier int
	}
}

// download fetches files into dir, several pieces at a time, goes on where an
// earlier attempt was cut, verifies each file and gives it its name.
func (h *Hub) download(ctx context.Context, ref, source string, files []remoteFile, dir string) ([]File, error) {
	p := &progress{hub: h, kind: EventProgress, ref: ref, source: source}
	var ts []*transfer
	defer func() {
		for _, t := range ts {
			t.close()
		}
	}()
	var missing int64
	for _, f := range files {
		t, left, err := h.begin(f, dir, p)
		if err != nil {
			return nil, err
		}
		ts = append(ts, t)
		p.total += f.size
		missing += left
	}
	p.mu.done = p.total - missing
	if err := h.room(dir, missing); err != nil {
		return nil, err
	}
	g, pieces := errgroup.WithContext(ctx)
	g.SetLimit(h.cfg.Connections)
	for _, t := range ts {
		for i := range t.mu.state.Done {
			g.Go(func() error { return h.piece(pieces, t, i) })
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	p.flush()
	return h.finish(ctx, ref, source, ts, dir, p.total)
}

// room refuses a download that the disk cannot take.
func (h *Hub) room(dir string, need int64) error {
	free, err := h.freeBytes(dir)
	if err != nil || need+spareBytes <= free {
		return nil // a file system that cannot say how much is free is tried
	}
	return &dynamo.Error{Kind: dynamo.KindExhausted, Message: fmt.Sprintf(
		"the download needs %d MB and the disk of %s has %d MB free; free some space or set --cache-dir (DYN_CACHE_DIR) to another disk", (need+spareBytes)>>20, dir, free>>20)}
}

// begin opens the part of f and returns how many bytes it lacks.
func (h *Hub) begin(f remoteFile, dir string, p *progress) (*transfer, int64, error) {
	t := &transfer{remoteFile: f, path: filepath.Join(dir, filepath.FromSlash(f.name)), prog: p}
	t.mu.carrier = -1
	if err := os.MkdirAll(filepath.Dir(t.path), 0o755); err != nil {
		return nil, 0, diskError("make the download folder", err)
	}
	want := state{Digest: f.sha256 + f.gitSHA1, Size: f.size, Piece: pieceBytes}
	info, err := os.Stat(t.path + partSuffix)
	if err != nil || !t.load(want) || info.Size() != f.size {
		want.Done = make([]int64, max(1, (f.size+pieceBytes-1)/pieceBytes))
		t.mu.state = want
	}
	out, err := h.openPart(t.path + partSuffix)
	if err != nil {
		return nil, 0, diskError("open "+f.name, err)
	}
	t.out = out
	if err := out.Truncate(f.size); err != nil {
		out.Close()
		return nil, 0, diskError("make room for "+f.name, err)
	}
	left := f.size
	for _, n := range t.mu.state.Done {
		left -= n
	}
	return t, left, nil
}

// load reads the resume record, if it is about the same bytes.
func (t *transfer) load(want state) bool {
	f, err := os.Open(t.path + stateSuffix)
	if err != nil {
		return false
	}
	defer f.Close()
	var s state
	if json.UnmarshalRead(io.LimitReader(f, maxMarkerBytes), &s) != nil {
		return false
	}
	if s.Digest != want.Digest || s.Size != want.Size || s.Piece != want.Piece || int64(len(s.Done)) != max(1, (s.Size+s.Piece-1)/s.Piece) {
		return false
	}
	for i, n := range s.Done {
		if n < 0 || n > t.pieceLen(i) {
			return false
		}
	}
	t.mu.state = s
	return true
}

// pieceLen is the size of piece i; the last one is shorter.
func (t *transfer) pieceLen(i int) int64 { return min(pieceBytes, t.size-int64(i)*pieceBytes) }

// save writes the resume record, at most every saveEvery unless now is set.
func (t *transfer) save(now bool) error {
	t.mu.Lock()
	if !now && time.Since(t.mu.saved) < saveEvery {
		t.mu.Unlock()
		return nil
	}
	t.mu.saved = time.Now()
	b, err := json.Marshal(&t.mu.state)
	t.mu.Unlock()
	if err != nil {
		return fmt.Errorf("write the resume record of %s: %w", t.name, err)
	}
	return writeFile(t.path+stateSuffix, b)
}

// close keeps what has come for the next attempt.
func (t *transfer) close() {
	if t.out == nil {
		return
	}
	t.out.Close() // every write was checked
	t.out = nil
	_ = t.save(true) // without the record the next attempt fetches again
}

// piece fetches piece i of t, trying again where that may help.
func (h *Hub) piece(ctx context.Context, t *transfer, i int) error {
	return h.web.retry(ctx, func() (bool, error) {
		before, end, skip := t.claim(i)
		if skip {
			return true, nil
		}
		err := h.ranged(ctx, t, before, end, i)
		after, end, done := t.claim(i)
		if err == nil && !done && after < end {
			err = io.ErrUnexpectedEOF
		}
		return after > before, err
	})
}

// claim returns the bytes that piece i has to fetch, or skip when there are
// none. The carrier of a whole file begins again at 0 each time.
func (t *transfer) claim(i int) (next, end int64, skip bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.carrier == i {
		var have int64
		for _, n := range t.mu.state.Done {
			have += n
		}
		return 0, t.size, have == t.size
	}
	start, n := int64(i)*pieceBytes, t.pieceLen(i)
	have := t.mu.state.Done[i]
	return start + have, start + n, have >= n || t.mu.carrier >= 0
}

// carry makes piece i the carrier of the whole file, which begins again; false
// if another piece is it already.
func (t *transfer) carry(i int) bool {
	t.mu.Lock()
	if t.mu.carrier >= 0 && t.mu.carrier != i {
		t.mu.Unlock()
		return false
	}
	t.mu.carrier = i
	var had int64
	for i, n := range t.mu.state.Done {
		had += n
		t.mu.state.Done[i] = 0
	}
	t.mu.Unlock()
	t.prog.add(-had)
	return true
}

// ranged asks for bytes [from, end) of piece i and writes what comes.
func (h *Hub) ranged(ctx context.Context, t *transfer, from, end int64, i int) error {
	ctx, stir, stop := watch(ctx)
	defer stop()
	req, err := h.web.request(ctx, http.MethodGet, t.repo, "resolve", t.commit, t.name)
	if err != nil {
		return err
	}
	part := from > 0 || end < t.size
	if part {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(from, 10)+"-"+strconv.FormatInt(end-1, 10))
	}
	resp, err := h.web.http.Do(req)
	if err != nil {
		return stalled(ctx, err)
	}
	defer resp.Body.Close()
	if err := h.web.check(resp, "file "+t.name+" of "+t.repo); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusPartialContent {
		// Either the whole file was wanted, or the server ignores ranges.
		if !t.carry(i) {
			return nil
		}
		from, end = 0, t.size
	} else if got := resp.Header.Get("Content-Range"); !strings.HasPrefix(got, fmt.Sprintf("bytes %d-", from)) {
		return fmt.Errorf("%s sent the range %q instead of %d-%d", resp.Request.URL.Host, got, from, end-1)
	}
	return stalled(ctx, t.write(resp.Body, from, end, stir))
}

// stalled puts the cause of a cancelled request in front of its error.
func stalled(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	return err
}

// write stores body at from and counts it, never past end.
func (t *transfer) write(body io.Reader, from, end int64, stir func()) error {
	buf := make([]byte, 256<<10)
	for from < end {
		n, err := body.Read(buf[:min(int64(len(buf)), end-from)])
		if n > 0 {
			stir()
			if _, err := t.out.WriteAt(buf[:n], from); err != nil {
				return diskFault{diskError("write "+t.name, err)}
			}
			t.count(from, int64(n))
			from += int64(n)
			if err := t.save(false); err != nil {
				return diskFault{err}
			}
		}
		if err == io.EOF && from < end {
			return io.ErrUnexpectedEOF
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}

// diskFault is an error that trying the network again does not mend.
type diskFault struct{ error }

// Unwrap returns the fault.
func (d diskFault) Unwrap() error { return d.error }

// count books n bytes at offset from to their pieces.
func (t *transfer) count(from, n int64) {
	t.prog.add(n)
	t.mu.Lock()
	defer t.mu.Unlock()
	for n > 0 {
		i := from / pieceBytes
		take := min(n, (i+1)*pieceBytes-from)
		t.mu.state.Done[i] += take
		from, n = from+take, n-take
	}
}

// finish verifies every file and takes its suffix off.
func (h *Hub) finish(ctx context.Context, ref, source string, ts []*transfer, dir string, total int64) ([]File, error) {
	p := &progress{hub: h, kind: EventVerify, ref: ref, source: source, total: total}
	var done []File
	var bad error
	for _, t := range ts {
		t.close()
		sum, err := t.verified(ctx, dir, source, p)
		if err != nil && dynamo.KindOf(err) == dynamo.KindCorrupt {
			bad = errors.Join(bad, err, os.Remove(t.path+partSuffix), os.Remove(t.path+stateSuffix))
			continue
		}
		if err != nil {
			return nil, err
		}
		done = append(done, File{Name: t.name, SizeBytes: t.size, SHA256: sum})
	}
	if bad != nil {
		return nil, bad
	}
	p.flush()
	for _, t := range ts {
		if err := os.Rename(t.path+partSuffix, t.path); err != nil {
			return nil, diskError("name "+t.name, err)
		}
		_ = os.Remove(t.path + stateSuffix) // left over, it describes no part and is ignored
	}
	return done, nil
}

// gitBlob hashes as git does: a header, then the bytes.
func gitBlob(size int64) hash.Hash {
	d := sha1.New()
	fmt.Fprintf(d, "blob %d\x00", size)
	return d
}
