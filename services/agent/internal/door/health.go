package door

import (
	"encoding/json"
	"html/template"
	"net/http"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/procmem"
	"github.com/xinghuo-edge/xinghuo/services/agent/internal/supervise"
)

// health is the body of /healthz.
type health struct {
	Status   string          `json:"status"` // ok, or degraded
	Services []serviceHealth `json:"services"`
}

type serviceHealth struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	PID      int    `json:"pid,omitempty"`
	Restarts uint32 `json:"restarts"`
	LastExit string `json:"last_exit,omitempty"`
	Adopted  bool   `json:"adopted,omitempty"`
}

func (d *Door) healthz(w http.ResponseWriter, _ *http.Request) {
	body, code := health{Status: "ok", Services: []serviceHealth{}}, http.StatusOK
	for _, st := range d.opts.Supervisor.List() {
		if st.State != supervise.Serving {
			body.Status, code = "degraded", http.StatusServiceUnavailable
		}
		body.Services = append(body.Services, serviceHealth{st.Name, st.State.String(), st.PID, st.Restarts, st.LastExit, st.Adopted})
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

type row struct {
	supervise.Status
	Good     bool
	Up       time.Duration
	RSS, PSS float64 // MB
}

func (d *Door) page(w http.ResponseWriter, _ *http.Request) {
	view := struct {
		Site, Node, Self string
		Good             bool
		Rows             []row
		Now              time.Time
	}{d.opts.Site, d.opts.Node, d.opts.Self, true, nil, time.Now()}
	for _, st := range d.opts.Supervisor.List() {
		r := row{Status: st, Good: st.State == supervise.Serving}
		view.Good = view.Good && r.Good
		if st.PID > 0 {
			r.Up = time.Since(st.Since).Round(time.Second)
			if mem, err := procmem.Of(st.PID); err == nil {
				r.RSS, r.PSS = float64(mem.RSS)/1e6, float64(mem.PSS)/1e6
			}
		}
		view.Rows = append(view.Rows, r)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := page.Execute(w, view); err != nil {
		d.opts.Log.Debug("health page not written", "err", err)
	}
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5">
<meta name="viewport" content="width=device-width"><title>{{if .Good}}✓{{else}}✗{{end}} {{.Site}}/{{.Node}} · Xinghuo</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1b1b1b}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .7rem;border-bottom:1px solid #ddd}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.good{color:#14692b}.bad{color:#a40e26;font-weight:600}
.exit{color:#555;font-size:.85em;white-space:pre-wrap}
@media(prefers-color-scheme:dark){body{background:#161616;color:#e8e8e8}th,td{border-color:#333}.good{color:#6fd08c}.bad{color:#ff8095}.exit{color:#aaa}a{color:#8ab4f8}}
</style></head><body>
<h1>Xinghuo <small>{{.Site}} / {{.Node}}</small></h1>
<p class="{{if .Good}}good{{else}}bad{{end}}">{{if .Good}}Every service serves.{{else}}Not every service serves.{{end}}</p>
<table><thead><tr><th>Service</th><th>State</th><th class="n">PID</th><th class="n">Up</th><th class="n">Restarts</th><th class="n">RSS, MB</th><th class="n">PSS, MB</th><th>Last exit</th></tr></thead><tbody>
{{range .Rows}}<tr><td>{{.Name}}</td><td class="{{if .Good}}good{{else}}bad{{end}}">{{.State}}{{if .Adopted}} (adopted){{end}}</td>
<td class="n">{{if .PID}}{{.PID}}{{end}}</td><td class="n">{{if .PID}}{{.Up}}{{end}}</td><td class="n">{{.Restarts}}</td>
<td class="n">{{if .RSS}}{{printf "%.1f" .RSS}}{{end}}</td><td class="n">{{if .PSS}}{{printf "%.1f" .PSS}}{{end}}</td><td class="exit">{{.LastExit}}</td></tr>
{{end}}</tbody></table>
<p><a href="/metrics">metrics</a> · <a href="/healthz">health as JSON</a> · profiles: <code>/debug/pprof/&lt;service&gt;/{profile,heap,allocs,goroutine,mutex,block}</code></p>
<p class="exit">{{.Now.Format "2006-01-02 15:04:05 -07:00"}}, again every 5 s</p>
</body></html>
`))
