package server

import "github.com/xinghuo-edge/xinghuo/bpf/firewall"

// Sink takes the figures; node.Stats is one.
type Sink interface {
	Gauge(name string, value float64, labels ...string)
	Counters(name, label string, byLabel map[string]uint64)
}

// Stats adds the kernel's figures to sink; while nothing is attached there are
// none, but the one that says so.
func (s *Server) Stats(sink Sink) {
	st, err := s.guard.Status()
	if err != nil {
		// A counter that cannot be read is not told from one that is not there;
		// GetStats says why.
		sink.Gauge("xinghuo_firewall_attached", 0)
		return
	}
	packets, bytes := byVerdict(st.Counters)
	sink.Gauge("xinghuo_firewall_attached", 1)
	sink.Gauge("xinghuo_firewall_entries", float64(st.Entries))
	sink.Counters("xinghuo_firewall_packets_total", "verdict", packets)
	sink.Counters("xinghuo_firewall_bytes_total", "verdict", bytes)
}

// byVerdict sorts each frame under one name; together they are all frames.
func byVerdict(s firewall.Stats) (packets, bytes map[string]uint64) {
	packets, bytes = make(map[string]uint64, 4), make(map[string]uint64, 4)
	for name, c := range map[string]firewall.Count{
		"passed":         s.Passed(),
		"denied":         s.DroppedRule,
		"denied_default": s.DroppedDefault,
		"malformed":      s.DroppedMalformed,
	} {
		packets[name], bytes[name] = c.Packets, c.Bytes
	}
	return packets, bytes
}
