package obs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// TracerConfig says which spans are recorded and where they go.
type TracerConfig struct {
	// Endpoint is the URL of an OTLP/HTTP collector; one without a path, such as
	// "http://localhost:4318", means its /v1/traces. Default empty: no span is
	// recorded.
	Endpoint string
	// Service is the service.name of every span. Default "dynamo".
	Service string
	// SampleRatio is the share of traces begun here that are recorded, 0 to 1.
	// Where the caller began the trace, the caller's choice holds.
	SampleRatio float64
	// Logger receives the faults of the export; nil discards them.
	Logger *slog.Logger
}

// Validate reports all faults at once.
func (c TracerConfig) Validate() error {
	var faults []error
	if c.Endpoint != "" {
		if _, err := c.collector(); err != nil {
			faults = append(faults, err)
		}
	}
	if math.IsNaN(c.SampleRatio) || c.SampleRatio < 0 || c.SampleRatio > 1 {
		faults = append(faults, fmt.Errorf("the share of traces to record is %v; it must be 0 to 1", c.SampleRatio))
	}
	return errors.Join(faults...)
}

// collector returns the URL that spans are sent to.
func (c TracerConfig) collector() (string, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("the OTLP endpoint is %q; it must be a URL such as http://localhost:4318", c.Endpoint)
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/v1/traces"
	}
	return u.String(), nil
}

// Tracer makes spans and sends those that are recorded to a collector, in its own
// time: a request never waits for the collector, and spans that it does not take
// are dropped. A nil Tracer is valid and makes none; the trace that a context
// carries is then passed on as it came.
//
// It owns the exporter's goroutine, which Shutdown ends.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	exporter *exporter
}

// NewTracer returns a tracer, or nil if c has no endpoint.
func NewTracer(c TracerConfig) (*Tracer, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure tracing: %w", err)
	}
	if c.Endpoint == "" {
		return nil, nil
	}
	if c.Service == "" {
		c.Service = "dynamo"
	}
	endpoint, err := c.collector()
	if err != nil {
		return nil, err
	}
	// With a live context this only makes the client; nothing is sent yet.
	otlp, err := otlptracehttp.New(context.Background(),
		otlptracehttp.WithEndpointURL(endpoint), otlptracehttp.WithTimeout(exportTimeout),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second / 2, MaxInterval: 4 * time.Second, MaxElapsedTime: exportPatience}))
	if err != nil {
		return nil, fmt.Errorf("configure tracing: %w", err)
	}
	e := newExporter(otlp, endpoint, For(c.Logger, "obs"))
	limits := sdk.NewSpanLimits()
	limits.AttributeCountLimit, limits.AttributeValueLengthLimit = maxSpanAttributes, maxAttributeBytes
	p := sdk.NewTracerProvider(
		sdk.WithBatcher(e, sdk.WithMaxQueueSize(maxQueuedSpans), sdk.WithMaxExportBatchSize(maxBatchSpans), sdk.WithBatchTimeout(spanDelay), sdk.WithExportTimeout(exportPatience)),
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(c.SampleRatio))),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", c.Service))),
		sdk.WithRawSpanLimits(limits),
	)
	return &Tracer{provider: p, tracer: p.Tracer("github.com/dynamo-go/dynamo"), exporter: e}, nil
}

// Start begins a span below the one that ctx carries (see Trace), be it of this
// process or of another, and returns a context that carries the new one. The
// span is nil, and its methods do nothing, when this trace is not recorded.
func (t *Tracer) Start(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	return t.start(ctx, name, attrs)
}

func (t *Tracer) start(ctx context.Context, name string, attrs []slog.Attr) (context.Context, *Span) {
	kind := trace.SpanKindInternal
	parent, local := parseTraceparent(Trace(ctx)), trace.SpanContextFromContext(ctx)
	if !parent.IsValid() || parent.SpanID() != local.SpanID() || parent.TraceID() != local.TraceID() {
		kind = trace.SpanKindServer
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(kind))
	ctx = WithTrace(ctx, formatTraceparent(span.SpanContext()))
	if !span.IsRecording() {
		return ctx, nil
	}
	s := &Span{span}
	s.set(attrs)
	return ctx, s
}

// Shutdown sends the spans that wait, for at most two seconds, and stops. Spans
// that the collector does not take by then are dropped and logged: they are no
// reason for a process to fail.
func (t *Tracer) Shutdown() error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err := t.provider.Shutdown(ctx)
	t.exporter.stop()
	if ctx.Err() != nil {
		t.exporter.log.Warn("spans that waited for the collector are dropped", KeyAddress, t.exporter.endpoint, KeyDuration, shutdownTimeout)
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop tracing: %w", err)
	}
	return nil
}

// Span is one piece of work in a trace. A nil Span is valid: it stands for work
// that is not recorded. A span may be used from several goroutines.
type Span struct {
	span trace.Span
}

// Set adds attributes, in place of those with the same keys.
func (s *Span) Set(attrs ...slog.Attr) {
	if s != nil {
		s.set(attrs)
	}
}

// Event records a moment within the span.
func (s *Span) Event(name string, attrs ...slog.Attr) {
	if s != nil {
		s.span.AddEvent(name, trace.WithAttributes(attributes(attrs)...))
	}
}

// End ends the span; err, which may be nil, says how the work went. Only the
// first call counts.
func (s *Span) End(err error) {
	if s == nil {
		return
	}
	if err != nil {
		kind := dynamo.KindOf(err)
		s.span.SetAttributes(attribute.String("error.type", kind.String()))
		if kind != dynamo.KindCancelled { // that the caller left is nobody's fault
			s.span.SetStatus(codes.Error, err.Error())
		}
	}
	s.span.End()
}

func (s *Span) set(attrs []slog.Attr) {
	if len(attrs) > 0 {
		s.span.SetAttributes(attributes(attrs)...)
	}
}

// attributes turns slog's attributes into OpenTelemetry's.
func attributes(attrs []slog.Attr) []attribute.KeyValue {
	list := make([]attribute.KeyValue, 0, len(attrs))
	for i := range attrs {
		list = appendAttribute(list, attrs[i].Key, attrs[i].Value)
	}
	return list
}

func appendAttribute(list []attribute.KeyValue, key string, v slog.Value) []attribute.KeyValue {
	v = v.Resolve()
	switch v.Kind() {
	case slog.KindBool:
		return append(list, attribute.Bool(key, v.Bool()))
	case slog.KindInt64:
		return append(list, attribute.Int64(key, v.Int64()))
	case slog.KindUint64:
		if u := v.Uint64(); u > math.MaxInt64 {
			return append(list, attribute.String(key, strconv.FormatUint(u, 10)))
		}
		return append(list, attribute.Int64(key, int64(v.Uint64())))
	case slog.KindFloat64:
		return append(list, attribute.Float64(key, v.Float64()))
	case slog.KindDuration:
		return append(list, attribute.Float64(key, v.Duration().Seconds()))
	case slog.KindGroup:
		for _, a := range v.Group() {
			list = appendAttribute(list, key+"."+a.Key, a.Value)
		}
		return list
	}
	return append(list, attribute.String(key, strings.ToValidUTF8(v.String(), "\ufffd")))
}
