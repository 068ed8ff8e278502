package mesh

import (
	"encoding/json"
	"slices"
	"testing"

	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"  // linked, so that it is found
	_ "github.com/xinghuo-edge/xinghuo/proto/xinghuo/ingest/v1" // linked, so that it is found
	_ "github.com/xinghuo-edge/xinghuo/proto/xinghuo/policy/v1" // linked, so that it is found
)

func TestServiceConfigNamesIdempotentMethods(t *testing.T) {
	raw, err := serviceConfig(protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		MethodConfig []struct {
			Name []struct{ Service, Method string }
		}
	}
	if err := json.Unmarshal([]byte(raw), &config); err != nil || len(config.MethodConfig) != 1 {
		t.Fatalf("service config %s: %v, want one method config", raw, err)
	}
	var names []string
	for _, n := range config.MethodConfig[0].Name {
		names = append(names, n.Service+"/"+n.Method)
	}
	tests := []struct {
		method string
		want   bool
	}{
		{"xinghuo.admin.v1.AdminService/GetInfo", true},         // NO_SIDE_EFFECTS
		{"xinghuo.admin.v1.AdminService/SetLogLevel", true},     // IDEMPOTENT
		{"xinghuo.admin.v1.AdminService/CaptureProfile", false}, // not marked
		{"xinghuo.ingest.v1.IngestService/SendCommand", false},
		{"xinghuo.ingest.v1.IngestService/WatchReadings", false},
		{"xinghuo.policy.v1.PolicyService/EvaluateStream", false},
	}
	for _, tt := range tests {
		if got := slices.Contains(names, tt.method); got != tt.want {
			t.Errorf("retried %s = %v, want %v", tt.method, got, tt.want)
		}
	}
	if empty, err := serviceConfig(new(protoregistry.Files)); err != nil || empty != "{}" {
		t.Errorf("service config without files = %s, %v, want {}", empty, err)
	}
}
