package telemetry_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/telemetry"
)

func TestLoggerAddsTraceIDs(t *testing.T) {
	var out bytes.Buffer
	log := telemetry.NewLogger(&out, slog.LevelInfo, slog.String("service", "policy")).With("room", "engine")
	ctx, span := telemetry.NewTracerProvider().Tracer("test").Start(t.Context(), "call")
	log.InfoContext(ctx, "module loaded", "module", "threshold")
	span.End()

	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("log line %q: %v", out.String(), err)
	}
	for key, want := range map[string]any{
		"msg": "module loaded", "service": "policy", "room": "engine", "module": "threshold",
		"trace_id": span.SpanContext().TraceID().String(), "span_id": span.SpanContext().SpanID().String(),
	} {
		if line[key] != want {
			t.Errorf("line[%q] = %v, want %v", key, line[key], want)
		}
	}
}

func TestLoggerWritesDurationsForPeople(t *testing.T) {
	var out bytes.Buffer
	telemetry.NewLogger(&out, slog.LevelInfo).With("period", time.Second).WithGroup("of").InfoContext(t.Context(), "ended", "life", 90*time.Second)
	if got, want := out.String(), `"period":"1s","of":{"life":"1m30s"}`; !strings.Contains(got, want) {
		t.Errorf("line = %s, want it with %s", got, want)
	}
}

func TestLoggerWithoutTrace(t *testing.T) {
	var out bytes.Buffer
	telemetry.NewLogger(&out, slog.LevelWarn).InfoContext(t.Context(), "quiet")
	if out.Len() != 0 {
		t.Errorf("info at level warn wrote %q, want nothing", out.String())
	}
	telemetry.NewLogger(&out, slog.LevelInfo).InfoContext(t.Context(), "loud")
	if bytes.Contains(out.Bytes(), []byte("trace_id")) {
		t.Errorf("line %q has a trace id without a span", out.String())
	}
}
