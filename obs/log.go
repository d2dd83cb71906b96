package obs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// The formats of log records.
const (
	FormatText = "text" // one line of key=value pairs
	FormatJSON = "json" // one JSON object a line
)

// LogConfig says what is logged and how.
type LogConfig struct {
	// Filter is a default level and exceptions by component, as in
	// "info,frontend=debug"; see ParseFilter. Empty is "info".
	Filter string
	// Format is FormatText or FormatJSON; empty is text.
	Format string
	// Output receives the records, one Write each.
	Output io.Writer
}

// NewLogger returns a logger that writes what c asks for. The fault of a bad
// filter or format names the flag to correct.
func NewLogger(c LogConfig) (*slog.Logger, error) {
	f, err := ParseFilter(c.Filter)
	if err != nil {
		return nil, fmt.Errorf("--log: %w", err)
	}
	o := &slog.HandlerOptions{Level: f.lowest()}
	var h slog.Handler
	switch c.Format {
	case FormatText, "":
		h = slog.NewTextHandler(c.Output, o)
	case FormatJSON:
		h = slog.NewJSONHandler(c.Output, o)
	default:
		return nil, fmt.Errorf("--log-format: %q is neither %s nor %s", c.Format, FormatText, FormatJSON)
	}
	return slog.New(&filterHandler{Handler: h, filter: f, level: f.Default}), nil
}

// For returns the logger of a component: its records carry the name and obey
// the filter's rule for it. A nil logger discards.
func For(l *slog.Logger, component string) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l.With(KeyTarget, component)
}

// Filter chooses the lowest level that is written, by component.
type Filter struct {
	// Default holds for components no rule names.
	Default slog.Level
	// Rules are tried longest name first.
	Rules []Rule
}

// Rule is the level of one component and of those beneath it ("engine" covers
// "engine/native").
type Rule struct {
	Component string
	Level     slog.Level
}

// LevelOff is above every level: nothing is written.
const LevelOff = slog.Level(127)

// maxRules bounds a filter; a longer one is a mistake.
const maxRules = 64

// ParseFilter reads the syntax of DYN_LOG: a comma-separated list of a level
// (error, warn, info, debug, trace, off) and of component=level rules. As in the
// reference's settings, "dynamo_router" names the component router and "::"
// separates like "/".
func ParseFilter(s string) (Filter, error) {
	f := Filter{Default: slog.LevelInfo}
	for _, part := range strings.Split(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		name, word, rule := strings.Cut(part, "=")
		if !rule {
			word = part
		}
		level, err := parseLevel(strings.TrimSpace(word))
		if err != nil {
			return Filter{}, err
		}
		if !rule {
			f.Default = level
			continue
		}
		if len(f.Rules) == maxRules {
			return Filter{}, fmt.Errorf("more than %d rules", maxRules)
		}
		name = strings.ReplaceAll(strings.TrimSpace(name), "::", "/")
		f.Rules = append(f.Rules, Rule{strings.TrimPrefix(name, "dynamo_"), level})
	}
	return f, nil
}

func parseLevel(word string) (slog.Level, error) {
	switch strings.ToLower(word) {
	case "error":
		return slog.LevelError, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "info":
		return slog.LevelInfo, nil
	case "debug":
		return slog.LevelDebug, nil
	case "trace":
		return slog.LevelDebug - 4, nil
	case "off":
		return LevelOff, nil
	}
	return 0, fmt.Errorf("%q is not a level; use error, warn, info, debug, trace, off or component=level, separated by commas", word)
}

// Level returns the lowest level that is written for a component.
func (f Filter) Level(component string) slog.Level {
	level, longest := f.Default, -1
	for _, r := range f.Rules {
		covers := component == r.Component || strings.HasPrefix(component, r.Component+"/")
		if covers && len(r.Component) > longest {
			level, longest = r.Level, len(r.Component)
		}
	}
	return level
}

func (f Filter) lowest() slog.Level {
	level := f.Default
	for _, r := range f.Rules {
		level = min(level, r.Level)
	}
	return level
}

// filterHandler applies the filter to the component its logger was made for.
type filterHandler struct {
	slog.Handler
	filter Filter
	level  slog.Level
}

// Enabled reports whether a record of level is written.
func (h *filterHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level
}

// WithAttrs takes the component's name from the target attribute.
func (h *filterHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	level := h.level
	for _, a := range attrs {
		if a.Key == KeyTarget {
			level = h.filter.Level(a.Value.String())
		}
	}
	return &filterHandler{Handler: h.Handler.WithAttrs(attrs), filter: h.filter, level: level}
}

// WithGroup keeps the level.
func (h *filterHandler) WithGroup(name string) slog.Handler {
	return &filterHandler{Handler: h.Handler.WithGroup(name), filter: h.filter, level: h.level}
}
