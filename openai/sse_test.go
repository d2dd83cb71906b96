package openai

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// events reads all events of a stream as "name|data".
func events(r io.Reader, most int) ([]string, error) {
	var all []string
	for s := NewReader(r, most); ; {
		e, err := s.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, fmt.Sprintf("%s|%s", e.Name, e.Data))
	}
}

func TestReader(t *testing.T) {
	tests := []struct {
		stream string
		want   []string
	}{
		{"data: a\n\ndata:b\n\n", []string{"|a", "|b"}},
		{"\ufeffdata: a\r\n\r\ndata: b\r\rdata: c\n\n", []string{"|a", "|b", "|c"}},
		{"event: x\ndata: 1\ndata:  2\nid: 7\nretry: 3\n\n", []string{"x|1\n 2"}},
		{"data: a\r\ndata: b\r\n\r\n", []string{"|a\nb"}},
		{": comment\n\nevent: lost\n\ndata: a\n\n", []string{"|a"}},
		{"data\n\n", []string{"|"}},
		{"data: cut off\n", nil},
		{"data: \xff\n\n", []string{"|\ufffd"}},
		{"data: [DONE]\n\n", []string{"|[DONE]"}},
		{"", nil},
	}
	for _, tt := range tests {
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(tt.stream), "bytewise": iotest.OneByteReader(strings.NewReader(tt.stream))} {
			got, err := events(r, 0)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("%s %q: got %q, %v; want %q", name, tt.stream, got, err, tt.want)
			}
		}
	}
	for _, long := range []string{"data: " + strings.Repeat("x", 100), strings.Repeat("data: xxxxxxxxxx\n", 10)} {
		if _, err := events(strings.NewReader(long), 64); err == nil {
			t.Errorf("%.20q…: an event over the limit is accepted", long)
		}
	}
	broken := errors.New("broken")
	if _, err := events(iotest.ErrReader(broken), 0); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}

// TestReset: a reader that is used again knows nothing of the stream before.
func TestReset(t *testing.T) {
	for _, before := range []string{"data: a\n\n", "event: x\ndata: cut", "data: a\r", "\ufeffdata: a\n\ndata: b\n\n"} {
		s := NewReader(strings.NewReader(before), 0)
		_, _ = s.Next() // whatever there is
		s.Reset(strings.NewReader("\ufeffdata: new\n\n"))
		if e, err := s.Next(); err != nil || string(e.Data) != "new" || len(e.Name) != 0 {
			t.Errorf("after %q: got %q, name %q, error %v", before, e.Data, e.Name, err)
		}
		if _, err := s.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("after %q: error %v, want EOF", before, err)
		}
	}
}

// BenchmarkReader reads a burst of plain events.
func BenchmarkReader(b *testing.B) {
	const n = 100
	stream := strings.Repeat("data: "+`{"id":"cmpl-0123456789abcdef","object":"text_completion","created":1760000000,"model":"m","choices":[{"index":0,"text":" token","finish_reason":null}]}`+"\n\n", n)
	s, r := NewReader(nil, 0), strings.NewReader("")
	b.ReportAllocs()
	b.SetBytes(int64(len(stream)))
	for b.Loop() {
		r.Reset(stream)
		s.Reset(r)
		for range n {
			if _, err := s.Next(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// FuzzReader wants the same events however the stream is cut, none above the
// limit.
func FuzzReader(f *testing.F) {
	f.Add([]byte("data: a\r\n\r\nevent: x\ndata: b\ndata: c\n\n: c\n\n\ufeff"), 3)
	f.Add([]byte("\ufeffdata: a\r\rdata\n\ndata: \xff\xe2\n\n"), 1)
	f.Fuzz(func(t *testing.T, stream []byte, cut int) {
		const most = 64
		want, wantErr := events(strings.NewReader(string(stream)), most)
		cut = max(0, min(cut, len(stream)))
		for _, r := range []io.Reader{
			iotest.OneByteReader(strings.NewReader(string(stream))),
			io.MultiReader(strings.NewReader(string(stream[:cut])), strings.NewReader(string(stream[cut:]))),
		} {
			got, err := events(r, most)
			if !slices.Equal(got, want) || (err == nil) != (wantErr == nil) {
				t.Fatalf("got %q, %v; want %q, %v", got, err, want, wantErr)
			}
		}
		for _, e := range want {
			if len(e) > 8*most {
				t.Fatalf("an event of %d bytes", len(e))
			}
		}
	})
}
