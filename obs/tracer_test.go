package obs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// receiver is a collector that keeps what it gets.
type receiver struct {
	*httptest.Server
	mu struct {
		sync.Mutex
		spans   map[string]*otlp.Span // by service and name
		refused int
		refuse  bool
	}
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.mu.spans = map[string]*otlp.Span{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		var request collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &request); err != nil || q.URL.Path != "/v1/traces" {
			t.Errorf("export to %s: %v", q.URL, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.mu.refuse {
			r.mu.refused++
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		for _, rs := range request.ResourceSpans {
			service := rs.Resource.Attributes[0].Value.GetStringValue()
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					r.mu.spans[service+" "+s.Name] = s
				}
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// names lists the spans it has.
func (r *receiver) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []string
	for n := range r.mu.spans {
		list = append(list, n)
	}
	slices.Sort(list)
	return list
}

// text prints the attributes of a span.
func text(s *otlp.Span) string {
	var list []string
	for _, a := range s.Attributes {
		list = append(list, fmt.Sprint(a.Key, "=", a.Value))
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func newTracer(t *testing.T, c TracerConfig) *Tracer {
	t.Helper()
	tr, err := NewTracer(c)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// TestSpansOfTwoProcesses follows a trace from one tracer to another by its
// traceparent alone.
func TestSpansOfTwoProcesses(t *testing.T) {
	r := newReceiver(t)
	front := newTracer(t, TracerConfig{Endpoint: r.URL, Service: "front", SampleRatio: 1})
	back := newTracer(t, TracerConfig{Endpoint: r.URL + "/", Service: "back"}) // records what its callers record

	ctx, root := front.Start(t.Context(), "request", slog.String(KeyModel, "m"))
	child, inner := front.Start(ctx, "generate")
	inner.Event("moved", slog.Int("attempt", 2))
	there, work := back.Start(WithTrace(context.Background(), Trace(child)), "work")
	work.Set(slog.Int("a", -1), slog.Bool("b", true), slog.Float64("c", .5), slog.Duration("d", time.Second), slog.Uint64("e", 1<<63),
		slog.Any("f", dynamo.WorkerID(255)), slog.Group("g", slog.Uint64("h", 7)), slog.String("i", "\xff"))
	_, left := back.Start(there, "left")
	left.End(&dynamo.Error{Kind: dynamo.KindCancelled, Message: "gone"})
	work.End(&dynamo.Error{Kind: dynamo.KindExhausted, Message: "full"})
	inner.End(nil)
	root.End(nil)
	if err := errors.Join(front.Shutdown(), back.Shutdown(), back.Shutdown()); err != nil {
		t.Fatal(err)
	}

	if got := strings.Join(r.names(), ","); got != "back left,back work,front generate,front request" {
		t.Fatalf("spans %s", got)
	}
	request, generate, worked, gone := r.mu.spans["front request"], r.mu.spans["front generate"], r.mu.spans["back work"], r.mu.spans["back left"]
	if len(request.ParentSpanId) != 0 || !bytes.Equal(generate.ParentSpanId, request.SpanId) || !bytes.Equal(worked.ParentSpanId, generate.SpanId) || !bytes.Equal(gone.ParentSpanId, worked.SpanId) {
		t.Error("the spans are not below one another")
	}
	if !bytes.Equal(worked.TraceId, request.TraceId) || Trace(child) != fmt.Sprintf("00-%x-%x-01", generate.TraceId, generate.SpanId) {
		t.Errorf("trace %x, %x, traceparent %s", request.TraceId, worked.TraceId, Trace(child))
	}
	if request.Kind != otlp.Span_SPAN_KIND_SERVER || generate.Kind != otlp.Span_SPAN_KIND_INTERNAL || worked.Kind != otlp.Span_SPAN_KIND_SERVER {
		t.Errorf("kinds %v, %v, %v", request.Kind, generate.Kind, worked.Kind)
	}
	got := strings.ReplaceAll(text(worked), "  ", " ") // protobuf's text is not stable on purpose
	if want := `a=int_value:-1 b=bool_value:true c=double_value:0.5 d=double_value:1 e=string_value:"9223372036854775808" error.type=string_value:"exhausted" f=string_value:"00000000000000ff" g.h=int_value:7 i=string_value:"` + "\ufffd" + `"`; got != want {
		t.Errorf("attributes\n%s, want\n%s", got, want)
	}
	if worked.Status.GetMessage() != "full" || worked.Status.Code != otlp.Status_STATUS_CODE_ERROR || gone.Status.GetCode() != otlp.Status_STATUS_CODE_UNSET {
		t.Errorf("status %v, %v", worked.Status, gone.Status)
	}
	if len(generate.Events) != 1 || generate.Events[0].Name != "moved" {
		t.Errorf("events %v", generate.Events)
	}
}

func TestSampling(t *testing.T) {
	r := newReceiver(t)
	const off = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	on := off[:53] + "01"
	tests := []struct {
		ratio    float64
		parent   string
		recorded bool
	}{
		{0, "", false}, {1, "", true}, {0, on, true}, {1, off, false}, {1, "garbage", true}, {1, off[:52] + "-0x", true},
	}
	var want []string
	for i, tt := range tests {
		tr := newTracer(t, TracerConfig{Endpoint: r.URL, SampleRatio: tt.ratio})
		name := fmt.Sprint("span ", i)
		ctx, span := tr.Start(WithTrace(t.Context(), tt.parent), name)
		if (span != nil) != tt.recorded {
			t.Errorf("%+v: recorded %v", tt, span != nil)
		}
		if tt.recorded {
			want = append(want, "dynamo "+name)
		}
		// Whoever is called below decides alike.
		got := Trace(ctx)
		if !ValidTrace(got) || (got[53:] == "01") != tt.recorded || ValidTrace(tt.parent) && got[:35] != tt.parent[:35] || got == tt.parent {
			t.Errorf("%+v: passes %q on", tt, got)
		}
		span.End(nil)
		if err := tr.Shutdown(); err != nil {
			t.Error(err)
		}
	}
	if got := r.names(); !slices.Equal(got, want) {
		t.Errorf("collected %q, want %q", got, want)
	}
}

func TestNoTracer(t *testing.T) {
	tr := newTracer(t, TracerConfig{SampleRatio: 1})
	if tr != nil {
		t.Fatal("a tracer without an endpoint records")
	}
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ctx := WithTrace(t.Context(), parent)
	name := strings.Repeat("x", 3)
	allocations := testing.AllocsPerRun(100, func() {
		below, span := tr.Start(ctx, "request", slog.String(KeyModel, name), slog.Int(KeyTokens, len(name)))
		span.Set(slog.String(KeyStatus, name))
		span.Event("event", slog.String(KeyStatus, name))
		span.End(nil)
		if Trace(below) != parent {
			t.Error("the trace is not passed on")
		}
	})
	if allocations != 0 {
		t.Errorf("%v allocations where nobody traces", allocations)
	}
	if err := tr.Shutdown(); err != nil {
		t.Error(err)
	}
}

func TestTracerConfig(t *testing.T) {
	for _, bad := range []TracerConfig{{Endpoint: "localhost:4318"}, {Endpoint: "ftp://x"}, {Endpoint: "http://"}, {Endpoint: "http://x", SampleRatio: 1.5}, {SampleRatio: -1}} {
		if tr, err := NewTracer(bad); err == nil || tr != nil {
			t.Errorf("NewTracer(%+v) succeeds", bad)
		}
	}
}

// logs is a log that can be read while it is written.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// TestCollectorRefuses wants one log record however many exports fail.
func TestCollectorRefuses(t *testing.T) {
	r := newReceiver(t)
	r.mu.refuse = true
	var log logs
	tr := newTracer(t, TracerConfig{Endpoint: r.URL, SampleRatio: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 3 * maxBatchSpans {
		_, span := tr.Start(t.Context(), "x")
		span.End(nil)
	}
	if err := tr.Shutdown(); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if r.mu.refused < 3 || log.count("does not take spans") != 1 || log.count("\n") != 1 {
		t.Errorf("%d refused, log:\n%s", r.mu.refused, log.b.String())
	}
}

// TestCollectorSilent wants no call to wait for a collector that never answers,
// and shutdown to give up in time.
func TestCollectorSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var log logs
	tr := newTracer(t, TracerConfig{Endpoint: "http://" + l.Addr().String(), SampleRatio: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	begin := time.Now()
	for range 4 * maxQueuedSpans {
		_, span := tr.Start(t.Context(), "x")
		span.End(nil)
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("spans took %v", d)
	}
	begin = time.Now()
	if err := tr.Shutdown(); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if d := time.Since(begin); d > shutdownTimeout+time.Second {
		t.Errorf("shutdown took %v", d)
	}
	if log.count("are dropped") == 0 {
		t.Error("nothing is logged")
	}
}

func TestValidTrace(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for s, want := range map[string]bool{
		good: true, good + "-x": false, "cc" + good[2:] + "-x": true, "cc" + good[2:] + "x": false, "ff" + good[2:]: false, strings.ToUpper(good): false,
		"": false, good[:54]: false, "00-" + strings.Repeat("0", 32) + good[35:]: false, good[:36] + strings.Repeat("0", 16) + "-01": false,
	} {
		if got := ValidTrace(s); got != want {
			t.Errorf("ValidTrace(%q) = %v", s, got)
		}
	}
}

func FuzzTraceparent(f *testing.F) {
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Add("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff-more")
	f.Fuzz(func(t *testing.T, s string) {
		c := parseTraceparent(s)
		if !c.IsValid() {
			return
		}
		if got := formatTraceparent(c); got[2:53] != s[2:53] || !parseTraceparent(got).Equal(c) {
			t.Errorf("%q becomes %q", s, got)
		}
	})
}

func BenchmarkSpan(b *testing.B) {
	for name, c := range map[string]TracerConfig{"none": {}, "unsampled": {Endpoint: "http://127.0.0.1:1"}} {
		b.Run(name, func(b *testing.B) {
			tr, err := NewTracer(c)
			if err != nil {
				b.Fatal(err)
			}
			defer tr.Shutdown()
			b.ReportAllocs()
			for b.Loop() {
				_, span := tr.Start(b.Context(), "request", slog.String(KeyModel, "m"))
				span.End(nil)
			}
		})
	}
}
