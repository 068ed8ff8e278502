package node

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
	"github.com/xinghuo-edge/xinghuo/pkg/peercred"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
)

// Version and Revision are set by the release's linker flags
// (-X github.com/xinghuo-edge/xinghuo/pkg/node.Version=v0.1.0).
var (
	Version  = "devel"
	Revision = ""
)

const (
	defaultProfile = 10 * time.Second
	minProfile     = 100 * time.Millisecond
	maxProfile     = 60 * time.Second
)

var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

type admin struct {
	adminv1.UnimplementedAdminServiceServer

	name  string
	cfg   settings.Node
	level *slog.LevelVar
	guard *peercred.Guard
	start time.Time

	mu           sync.Mutex // guards what follows
	state        adminv1.State
	degradations map[string]*adminv1.Degradation
	facts        map[string]string
	sources      []func(*Stats)
	drain        context.CancelFunc
	profiling    bool
}

func newAdmin(name string, cfg settings.Node, level *slog.LevelVar, guard *peercred.Guard) *admin {
	a := &admin{
		name: name, cfg: cfg, level: level, guard: guard, start: time.Now(),
		state:        adminv1.State_STATE_SERVING,
		degradations: make(map[string]*adminv1.Degradation),
		facts:        make(map[string]string),
		drain:        func() {},
	}
	a.sources = append(a.sources, a.processStats)
	return a
}

func (a *admin) collect(source func(*Stats)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sources = append(a.sources, source)
}

func (a *admin) degrade(component, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if reason == "" {
		delete(a.degradations, component)
		return
	}
	since := timestamppb.Now()
	if old := a.degradations[component]; old != nil {
		since = old.GetSince()
	}
	a.degradations[component] = &adminv1.Degradation{Component: component, Reason: reason, Since: since}
}

func (a *admin) setFact(name, value string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.facts[name] = value
}

func (a *admin) setState(s adminv1.State) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state = s
}

func (a *admin) setDrain(drain context.CancelFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drain = drain
}

// GetInfo implements AdminServiceServer.
func (a *admin) GetInfo(context.Context, *adminv1.GetInfoRequest) (*adminv1.GetInfoResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	resp := &adminv1.GetInfoResponse{
		Service: a.name, Version: Version, Revision: revision(), GoVersion: runtime.Version(),
		Pid: int32(os.Getpid()), StartTime: timestamppb.New(a.start),
		Site: a.cfg.Site, Node: a.cfg.Node, State: a.state, Facts: maps.Clone(a.facts),
	}
	for _, name := range slices.Sorted(maps.Keys(a.degradations)) {
		resp.Degradations = append(resp.Degradations, a.degradations[name])
	}
	return resp, nil
}

// revision falls back on what `go build` stamps into a binary built in a
// checkout.
func revision() string {
	if Revision != "" {
		return Revision
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}

// GetStats implements AdminServiceServer.
func (a *admin) GetStats(context.Context, *adminv1.GetStatsRequest) (*adminv1.GetStatsResponse, error) {
	a.mu.Lock()
	sources := slices.Clone(a.sources)
	a.mu.Unlock()
	var stats Stats
	for _, source := range sources {
		source(&stats)
	}
	return &adminv1.GetStatsResponse{Metrics: stats.sorted()}, nil
}

// SetLogLevel implements AdminServiceServer.
func (a *admin) SetLogLevel(_ context.Context, req *adminv1.SetLogLevelRequest) (*adminv1.SetLogLevelResponse, error) {
	level, ok := levels[req.GetLevel()]
	if !ok { // slog itself would take more, such as info+3
		return nil, fault.Invalid("level", "must be debug, info, warn or error, is %.40q", req.GetLevel())
	}
	previous := strings.ToLower(a.level.Level().String())
	a.level.Set(level)
	return &adminv1.SetLogLevelResponse{PreviousLevel: previous}, nil
}

// CaptureProfile implements AdminServiceServer.
func (a *admin) CaptureProfile(ctx context.Context, req *adminv1.CaptureProfileRequest) (*adminv1.CaptureProfileResponse, error) {
	if req.GetKind() == adminv1.ProfileKind_PROFILE_KIND_CPU {
		return a.cpuProfile(ctx, req.GetDuration())
	}
	name := strings.ToLower(strings.TrimPrefix(req.GetKind().String(), "PROFILE_KIND_"))
	profile := pprof.Lookup(name)
	if profile == nil {
		return nil, fault.Invalid("kind", "must be cpu, heap, allocs, goroutine, mutex or block, is %v", req.GetKind())
	}
	var buf bytes.Buffer
	if err := profile.WriteTo(&buf, 0); err != nil {
		return nil, fmt.Errorf("write %s profile: %w", name, err)
	}
	return &adminv1.CaptureProfileResponse{Profile: buf.Bytes()}, nil
}

func (a *admin) cpuProfile(ctx context.Context, length *durationpb.Duration) (*adminv1.CaptureProfileResponse, error) {
	d := defaultProfile
	if length != nil {
		d = length.AsDuration()
	}
	if d == 0 {
		d = defaultProfile
	}
	if d < minProfile || d > maxProfile {
		return nil, fault.Invalid("duration", "must be %v to %v, is %v", minProfile, maxProfile, d)
	}
	a.mu.Lock()
	busy := a.profiling
	a.profiling = true
	a.mu.Unlock()
	if busy {
		return nil, fmt.Errorf("%w: a CPU profile is being taken already", fault.ErrExhausted)
	}
	defer func() {
		a.mu.Lock()
		a.profiling = false
		a.mu.Unlock()
	}()
	var buf bytes.Buffer
	if err := pprof.StartCPUProfile(&buf); err != nil {
		return nil, fmt.Errorf("%w: %w", fault.ErrExhausted, err)
	}
	end := time.NewTimer(d)
	defer end.Stop()
	select {
	case <-end.C:
	case <-ctx.Done():
	}
	pprof.StopCPUProfile()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("take CPU profile: %w", err)
	}
	return &adminv1.CaptureProfileResponse{Profile: buf.Bytes()}, nil
}

// Drain implements AdminServiceServer.
func (a *admin) Drain(context.Context, *adminv1.DrainRequest) (*adminv1.DrainResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drain()
	return &adminv1.DrainResponse{Grace: durationpb.New(a.cfg.GraceTimeout)}, nil
}
