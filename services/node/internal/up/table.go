package up

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// screen shows figures: a table that is drawn over itself on a terminal, a line
// each elsewhere.
type screen struct {
	out   io.Writer
	fd    int               // of the terminal; -1 when out is none
	lines int               // of the table that stands there
	tells map[string]string // what was told of a service that does not run
}

func newScreen(out io.Writer, plain bool) *screen {
	s := &screen{out: out, fd: -1, tells: make(map[string]string)}
	if f, ok := out.(*os.File); ok && !plain {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil && os.Getenv("TERM") != "dumb" {
			s.fd = int(f.Fd())
		}
	}
	return s
}

// say writes a line that stays.
func (s *screen) say(format string, args ...any) error {
	s.lines = 0
	_, err := fmt.Fprintf(s.out, format+"\n", args...)
	return err
}

// show draws the figures.
func (s *screen) show(f figures) error {
	if s.fd < 0 {
		return s.line(f)
	}
	width, height := 80, 24
	if ws, err := unix.IoctlGetWinsize(s.fd, unix.TIOCGWINSZ); err == nil && ws.Col > 0 && ws.Row > 0 {
		width, height = int(ws.Col), int(ws.Row)
	}
	var b strings.Builder
	if s.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dF", s.lines)
	}
	b.WriteString("\x1b[J")
	s.lines = 0
	for _, row := range table(f) {
		if s.lines+1 >= height { // what scrolls away cannot be drawn over
			break
		}
		b.WriteString(clip(row, width) + "\n")
		s.lines++
	}
	_, err := io.WriteString(s.out, b.String())
	return err
}

func clip(s string, width int) string {
	r := []rune(s)
	return string(r[:min(len(r), width)])
}

func (s *screen) line(f figures) error {
	for _, m := range f.services {
		bad := m.lastExit != "" && m.state != "serving"
		if bad && s.tells[m.name] != m.lastExit {
			s.tells[m.name] = m.lastExit
			if _, err := fmt.Fprintf(s.out, "%s: %s; it ended with %s\n", m.name, m.state, m.lastExit); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintf(s.out,
		"%6s  devices %d  readings/s %.0f  acked %d  policy %d accepted %d rejected  jetstream %d  mqtt %d  drops %d+%d  ack p50 %s p99 %s  rss %s pss %s\n",
		f.up.Round(time.Second), f.devices, f.perSec, f.acked, f.accepted, f.rejected, f.delivered, f.published, f.drops, f.mqttDrops,
		short(f.p50), short(f.p99), megabytes(f.total.RSS), megabytes(f.total.PSS))
	return err
}

func table(f figures) []string {
	rows := []string{
		fmt.Sprintf("Xinghuo · up %s", f.up.Round(time.Second)),
		"",
		fmt.Sprintf("  devices     %14s    readings/s  %14s", group(uint64(f.devices)), group(uint64(f.perSec+0.5))),
		fmt.Sprintf("  readings    %14s    acked       %14s", group(f.received), group(f.acked)),
		fmt.Sprintf("  accepted    %14s    rejected    %14s", group(f.accepted), group(f.rejected)),
		fmt.Sprintf("  JetStream   %14s    MQTT        %14s", group(f.delivered), group(f.published)),
		fmt.Sprintf("  drops       %14s    MQTT drops  %14s", group(f.drops), group(f.mqttDrops)),
		fmt.Sprintf("  ack P50     %14s    ack P99     %14s", short(f.p50), short(f.p99)),
		"",
		fmt.Sprintf("  %-12s %-14s %8s %10s %10s", "service", "state", "restarts", "RSS", "PSS"),
	}
	for _, m := range f.services {
		row := fmt.Sprintf("  %-12s %-14s %8d %10s %10s", m.name, m.state, m.restarts, megabytes(m.usage.RSS), megabytes(m.usage.PSS))
		if m.state != "serving" && m.lastExit != "" {
			first, _, _ := strings.Cut(m.lastExit, "\n")
			row += "  " + first
		}
		rows = append(rows, row)
	}
	rows = append(rows, fmt.Sprintf("  %-12s %-14s %8s %10s %10s", "in all", "", "", megabytes(f.total.RSS), megabytes(f.total.PSS)))
	if f.fleet.RSS > 0 {
		rows = append(rows, fmt.Sprintf("  %-12s %-14s %8s %10s %10s", "(meters)", "not counted", "", megabytes(f.fleet.RSS), megabytes(f.fleet.PSS)))
	}
	return rows
}

func megabytes(n uint64) string {
	if n == 0 {
		return "–"
	}
	return strconv.FormatFloat(float64(n)/1e6, 'f', 1, 64) + " MB"
}

func short(d time.Duration) string {
	switch {
	case d == 0:
		return "–"
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

// group writes 1234567 as 1,234,567.
func group(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
