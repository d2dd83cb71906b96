package obs

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestFilter(t *testing.T) {
	tests := []struct {
		filter, component string
		want              slog.Level
	}{
		{"", "frontend", slog.LevelInfo},
		{"warn", "frontend", slog.LevelWarn},
		{"info,dynamo_router=debug", "router", slog.LevelDebug},
		{"info,dynamo_router=debug", "frontend", slog.LevelInfo},
		{"error,engine=info,engine::native=debug", "engine/native", slog.LevelDebug},
		{"error,engine=info,engine/native=debug", "engine/echo", slog.LevelInfo},
		{"error,engine=info", "engineer", slog.LevelError},
		{" off , node = TRACE ", "node", slog.LevelDebug - 4},
		{"off", "node", LevelOff},
	}
	for _, tt := range tests {
		f, err := ParseFilter(tt.filter)
		if err != nil {
			t.Fatalf("ParseFilter(%q): %v", tt.filter, err)
		}
		if got := f.Level(tt.component); got != tt.want {
			t.Errorf("filter %q, component %q: level %v, want %v", tt.filter, tt.component, got, tt.want)
		}
	}
	for _, bad := range []string{"loud", "node=", "=", strings.Repeat("a=info,", maxRules+1)} {
		if _, err := ParseFilter(bad); err == nil && bad != "=" {
			t.Errorf("ParseFilter(%.20q) succeeds", bad)
		}
	}
}

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	l, err := NewLogger(LogConfig{Filter: "warn,frontend=debug", Format: FormatJSON, Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	l.Info("dropped")
	For(l, "node").Info("dropped")
	For(l, "frontend").With(KeyModel, "m").WithGroup("g").Debug("kept", "x", 1)
	var record map[string]any
	if err := json.Unmarshal(out.Bytes(), &record); err != nil {
		t.Fatalf("not one JSON record: %v: %s", err, out.String())
	}
	if record["msg"] != "kept" || record[KeyTarget] != "frontend" || record[KeyModel] != "m" {
		t.Errorf("got %v", record)
	}
	For(nil, "frontend").Error("discarded")
	for _, c := range []LogConfig{{Filter: "loud"}, {Format: "xml"}} {
		if _, err := NewLogger(c); err == nil || !strings.Contains(err.Error(), "--log") {
			t.Errorf("NewLogger(%+v): %v, want an error that names the flag", c, err)
		}
	}
}

func TestRegistry(t *testing.T) {
	r := NewRegistry().WithProcess()
	r.Counters("test_total", "Things.", "kind").WithLabelValues("a").Add(2)
	r.GaugeFunc("test_now", "Now.", func() float64 { return 7 })
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{`test_total{kind="a"} 2`, "test_now 7", "go_goroutines", "process_cpu_seconds_total"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("scrape lacks %q", want)
		}
	}
}
