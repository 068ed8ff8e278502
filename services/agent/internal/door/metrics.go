package door

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	adminv1 "github.com/xinghuo-edge/xinghuo/proto/xinghuo/admin/v1"

	"github.com/xinghuo-edge/xinghuo/services/agent/internal/supervise"
)

const (
	// scrapeLimit is what a service has to give its figures: one that is slow
	// is left out, and does not hold up the others.
	scrapeLimit = time.Second
	// maxScrapes bounds the scrapes that run at once.
	maxScrapes = 4
	// maxSamples bounds what is taken of one service.
	maxSamples = 10_000
)

var (
	metricName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)
	labelName  = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
)

// metrics writes the text exposition format 0.0.4 of Prometheus.
func (d *Door) metrics(w http.ResponseWriter, r *http.Request) {
	select {
	case d.scrapes <- struct{}{}:
		defer func() { <-d.scrapes }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many scrapes at once", http.StatusServiceUnavailable)
		return
	}
	var buf bytes.Buffer
	d.gather(r.Context()).write(&buf)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(buf.Bytes()) // a client that went away is no concern
}

func (d *Door) gather(ctx context.Context) families {
	list := d.opts.Supervisor.List()
	names := []string{d.opts.Self}
	for _, st := range list {
		names = append(names, st.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, scrapeLimit)
	defer cancel()
	figures := make([][]*adminv1.Metric, len(names))
	up := make([]bool, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			got, err := d.opts.Prober.Stats(ctx, name)
			figures[i], up[i] = got, err == nil
		})
	}
	wg.Wait()

	f := make(families)
	dropped := 0
	for i, name := range names {
		f.add(&adminv1.Metric{Name: "xinghuo_service_up", Value: number(up[i]), Kind: adminv1.MetricKind_METRIC_KIND_GAUGE}, name)
		if n := len(figures[i]) - maxSamples; n > 0 {
			dropped += n
			figures[i] = figures[i][:maxSamples]
		}
		for _, m := range figures[i] {
			if !f.add(m, name) {
				dropped++
			}
		}
	}
	for _, st := range list {
		f.add(&adminv1.Metric{Name: "xinghuo_service_restarts_total", Value: float64(st.Restarts), Kind: adminv1.MetricKind_METRIC_KIND_COUNTER}, st.Name)
		for s := supervise.Starting; s <= supervise.Misconfigured; s++ {
			f.add(&adminv1.Metric{
				Name: "xinghuo_service_state", Value: number(st.State == s), Kind: adminv1.MetricKind_METRIC_KIND_GAUGE,
				Labels: map[string]string{"state": s.String()},
			}, st.Name)
		}
	}
	f.add(&adminv1.Metric{Name: "xinghuo_agent_samples_left_out", Value: float64(dropped), Kind: adminv1.MetricKind_METRIC_KIND_GAUGE}, d.opts.Self)
	return f
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// families are samples by their metric's name: the format wants those of one
// name together, under one type.
type families map[string]*family

type family struct {
	kind    adminv1.MetricKind
	samples map[string]float64 // by rendered labels
}

// add takes a service's sample. It reports false for one that the format does
// not allow: a bad name, a type that differs from another service's, labels
// that stand there already.
func (f families) add(m *adminv1.Metric, service string) bool {
	if !metricName.MatchString(m.GetName()) {
		return false
	}
	fam := f[m.GetName()]
	if fam == nil {
		fam = &family{kind: m.GetKind(), samples: make(map[string]float64)}
		f[m.GetName()] = fam
	}
	labels, ok := renderLabels(m.GetLabels(), service)
	if !ok || fam.kind != m.GetKind() {
		return false
	}
	if _, twice := fam.samples[labels]; twice {
		return false
	}
	fam.samples[labels] = m.GetValue()
	return true
}

var escape = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// renderLabels writes labels in their order by name. A label `service` of the
// metric's own becomes exported_service, as Prometheus does it.
func renderLabels(labels map[string]string, service string) (string, bool) {
	all := make(map[string]string, len(labels)+1)
	for name, value := range labels {
		if name == "service" {
			name = "exported_service"
		}
		if !labelName.MatchString(name) || strings.HasPrefix(name, "__") {
			return "", false
		}
		all[name] = value
	}
	all["service"] = service
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(name + `="` + escape.Replace(strings.ToValidUTF8(all[name], "\uFFFD")) + `"`)
	}
	return b.String(), true
}

func (f families) write(b *bytes.Buffer) {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		fam := f[name]
		if len(fam.samples) == 0 {
			continue
		}
		kind := "untyped"
		switch fam.kind {
		case adminv1.MetricKind_METRIC_KIND_COUNTER:
			kind = "counter"
		case adminv1.MetricKind_METRIC_KIND_GAUGE:
			kind = "gauge"
		case adminv1.MetricKind_METRIC_KIND_UNSPECIFIED:
		}
		b.WriteString("# TYPE " + name + " " + kind + "\n")
		for _, labels := range slices.Sorted(maps.Keys(fam.samples)) {
			b.WriteString(name + "{" + labels + "} " + strconv.FormatFloat(fam.samples[labels], 'g', -1, 64) + "\n")
		}
	}
}
