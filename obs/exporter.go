package obs

import (
	"context"
	"log/slog"
	"sync"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// exporter sends spans to a collector. It keeps the faults of that to itself and
// a bounded log; OpenTelemetry would hand them to a handler that all of the
// process shares.
type exporter struct {
	sdk.SpanExporter
	endpoint string
	log      *slog.Logger
	ctx      context.Context // of every export: ends with stop
	stop     context.CancelFunc

	mu struct {
		sync.Mutex
		logged time.Time
		lost   int // spans dropped since
	}
}

var _ sdk.SpanExporter = (*exporter)(nil)

func newExporter(next sdk.SpanExporter, endpoint string, log *slog.Logger) *exporter {
	e := &exporter{SpanExporter: next, endpoint: endpoint, log: log}
	e.ctx, e.stop = context.WithCancel(context.Background())
	return e
}

// ExportSpans implements sdk.SpanExporter. The batch is gone afterwards, sent or
// not.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.failed(len(spans), err)
	}
	return nil
}

// failed logs a fault unless another one was logged just before.
func (e *exporter) failed(spans int, err error) {
	e.mu.Lock()
	e.mu.lost += spans
	lost, due := e.mu.lost, time.Since(e.mu.logged) >= exportLogEvery
	if due {
		e.mu.logged, e.mu.lost = time.Now(), 0
	}
	e.mu.Unlock()
	if due {
		e.log.Warn("the trace collector does not take spans; they are dropped", KeyAddress, e.endpoint, "spans", lost, KeyError, err)
	}
}
