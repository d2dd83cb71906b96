package obs

import (
	"context"

	"go.opentelemetry.io/otel/trace"
)

// traceKey finds the trace context in a context.
type traceKey struct{}

// WithTrace returns a context that carries a W3C traceparent; empty carries
// none.
func WithTrace(ctx context.Context, traceparent string) context.Context {
	if traceparent == "" {
		return ctx
	}
	return context.WithValue(ctx, traceKey{}, traceparent)
}

// Trace returns the traceparent that ctx carries, or nothing.
func Trace(ctx context.Context) string {
	t, _ := ctx.Value(traceKey{}).(string)
	return t
}

// traceparentBytes is the length of a traceparent of version 00:
// "00-", 32 digits of the trace, "-", 16 of the span, "-", 2 of flags.
const traceparentBytes = 55

// ValidTrace reports whether s is a traceparent that can be passed on: of
// version 00, or a later one that begins like it.
func ValidTrace(s string) bool { return parseTraceparent(s).IsValid() }

// parseTraceparent returns the span a traceparent names; it is not valid if s is
// none. Flags but for the sampling bit are dropped, as the standard wants.
func parseTraceparent(s string) trace.SpanContext {
	if len(s) < traceparentBytes || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return trace.SpanContext{}
	}
	var version, flags [1]byte
	var c trace.SpanContextConfig
	if !unhex(version[:], s[:2]) || !unhex(c.TraceID[:], s[3:35]) || !unhex(c.SpanID[:], s[36:52]) || !unhex(flags[:], s[53:55]) {
		return trace.SpanContext{}
	}
	later := len(s) > traceparentBytes
	if version[0] == 0xff || version[0] == 0 && later || later && s[traceparentBytes] != '-' {
		return trace.SpanContext{}
	}
	c.TraceFlags, c.Remote = trace.TraceFlags(flags[0])&trace.FlagsSampled, true
	return trace.NewSpanContext(c)
}

// unhex reads lower-case hexadecimal digits, the only ones the standard allows.
func unhex(dst []byte, s string) bool {
	for i := range dst {
		for _, c := range []byte(s[2*i : 2*i+2]) {
			switch {
			case '0' <= c && c <= '9':
				dst[i] = dst[i]<<4 | (c - '0')
			case 'a' <= c && c <= 'f':
				dst[i] = dst[i]<<4 | (c - 'a' + 10)
			default:
				return false
			}
		}
	}
	return true
}

// formatTraceparent writes what parseTraceparent reads.
func formatTraceparent(c trace.SpanContext) string {
	const digits = "0123456789abcdef"
	b := make([]byte, 0, traceparentBytes)
	hex := func(bytes ...byte) {
		for _, x := range bytes {
			b = append(b, digits[x>>4], digits[x&15])
		}
	}
	traceID, spanID := c.TraceID(), c.SpanID()
	b = append(b, "00-"...)
	hex(traceID[:]...)
	b = append(b, '-')
	hex(spanID[:]...)
	b = append(b, '-')
	hex(byte(c.TraceFlags() & trace.FlagsSampled))
	return string(b)
}
