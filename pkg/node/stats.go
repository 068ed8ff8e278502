package node

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"runtime/metrics"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"
)

// Stats collects the figures of one GetStats call.
type Stats struct {
	metrics []*adminv1.Metric
}

// Counter adds a figure that only rises. Labels are names and values in turn.
func (s *Stats) Counter(name string, value float64, labels ...string) {
	s.add(adminv1.MetricKind_METRIC_KIND_COUNTER, name, value, labels)
}

// Gauge adds a figure that rises and falls. Labels are names and values in turn.
func (s *Stats) Gauge(name string, value float64, labels ...string) {
	s.add(adminv1.MetricKind_METRIC_KIND_GAUGE, name, value, labels)
}

// Counters adds a counter for each key of byLabel.
func (s *Stats) Counters(name, label string, byLabel map[string]uint64) {
	for _, k := range slices.Sorted(maps.Keys(byLabel)) {
		s.Counter(name, float64(byLabel[k]), label, k)
	}
}

func (s *Stats) add(kind adminv1.MetricKind, name string, value float64, labels []string) {
	m := &adminv1.Metric{Name: name, Value: value, Kind: kind}
	for i := 0; i+1 < len(labels); i += 2 {
		if m.Labels == nil {
			m.Labels = make(map[string]string, len(labels)/2)
		}
		m.Labels[labels[i]] = labels[i+1]
	}
	s.metrics = append(s.metrics, m)
}

func (s *Stats) sorted() []*adminv1.Metric {
	slices.SortStableFunc(s.metrics, func(a, b *adminv1.Metric) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return s.metrics
}

// processStats are the figures of every service. Their names are those of the
// Prometheus client libraries, so that ready-made dashboards find them.
func (a *admin) processStats(s *Stats) {
	s.Gauge("process_start_time_seconds", float64(a.start.UnixMilli())/1e3)
	if rss, ok := residentBytes(); ok {
		s.Gauge("process_resident_memory_bytes", rss)
	}
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err == nil {
		s.Counter("process_cpu_seconds_total", float64(ru.Utime.Nano()+ru.Stime.Nano())/1e9)
	}
	samples := []metrics.Sample{
		{Name: "/sched/goroutines:goroutines"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/cycles/total:gc-cycles"},
	}
	metrics.Read(samples)
	s.Gauge("go_goroutines", float64(samples[0].Value.Uint64()))
	s.Gauge("go_memstats_heap_alloc_bytes", float64(samples[1].Value.Uint64()))
	s.Counter("go_gc_cycles_total", float64(samples[2].Value.Uint64()))
	s.Counter("xinghuo_calls_refused_total", float64(a.guard.Refused()))
}

// residentBytes reads the second field of /proc/self/statm (proc(5)).
func residentBytes() (float64, bool) {
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	var size, resident float64
	if _, err := fmt.Fscan(strings.NewReader(string(raw)), &size, &resident); err != nil {
		return 0, false
	}
	return resident * float64(os.Getpagesize()), true
}
