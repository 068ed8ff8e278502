package door

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/services/agent/internal/supervise"
)

const (
	defaultSeconds = 10
	maxSeconds     = 60
	// profileMargin is what a profile may take beyond its own length.
	profileMargin = 5 * time.Second
)

var profiles = map[string]adminv1.ProfileKind{
	"profile":   adminv1.ProfileKind_PROFILE_KIND_CPU,
	"heap":      adminv1.ProfileKind_PROFILE_KIND_HEAP,
	"allocs":    adminv1.ProfileKind_PROFILE_KIND_ALLOCS,
	"goroutine": adminv1.ProfileKind_PROFILE_KIND_GOROUTINE,
	"mutex":     adminv1.ProfileKind_PROFILE_KIND_MUTEX,
	"block":     adminv1.ProfileKind_PROFILE_KIND_BLOCK,
}

// profile answers `go tool pprof http://…/debug/pprof/<service>/heap`.
func (d *Door) profile(w http.ResponseWriter, r *http.Request) {
	service := r.PathValue("service")
	known := service == d.opts.Self || slices.ContainsFunc(d.opts.Supervisor.List(),
		func(st supervise.Status) bool { return st.Name == service })
	kind, ok := profiles[r.PathValue("profile")]
	if !known || !ok {
		http.NotFound(w, r)
		return
	}
	req := &adminv1.CaptureProfileRequest{Kind: kind}
	limit := profileMargin
	if kind == adminv1.ProfileKind_PROFILE_KIND_CPU {
		length, err := seconds(r.FormValue("seconds"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		req.Duration = durationpb.New(length)
		limit += length
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit + writeTimeout))
	raw, err := d.opts.Prober.Profile(ctx, service, req)
	if err != nil {
		st, _ := fault.Status(err)
		d.opts.Log.InfoContext(ctx, "profile failed", "of", service, "err", err)
		http.Error(w, "profile of "+service+": "+st.Message(), http.StatusBadGateway)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", `attachment; filename="`+service+"-"+r.PathValue("profile")+`.pb.gz"`)
	_, _ = w.Write(raw)
}

func seconds(text string) (time.Duration, error) {
	if text == "" {
		return defaultSeconds * time.Second, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxSeconds {
		return 0, fmt.Errorf("seconds: must be 1 to %d, is %.20q", maxSeconds, text)
	}
	return time.Duration(n) * time.Second, nil
}
