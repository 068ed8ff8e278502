package server

import "sync/atomic"

// Sink takes the figures; node.Stats is one.
type Sink interface {
	Counter(name string, value float64, labels ...string)
}

type stats struct {
	seal, open, digest, sign, verify operation
}

// operation counts items, not calls: a batch that fails fails whole.
type operation struct{ done, failed atomic.Uint64 }

func (o *operation) count(items int, err error) {
	if err != nil {
		o.failed.Add(uint64(items))
		return
	}
	o.done.Add(uint64(items))
}

// Stats adds the server's figures to sink.
func (s *Server) Stats(sink Sink) {
	for _, op := range []struct {
		name string
		*operation
	}{
		{"seal", &s.stats.seal},
		{"open", &s.stats.open},
		{"digest", &s.stats.digest},
		{"sign", &s.stats.sign},
		{"verify", &s.stats.verify},
	} {
		sink.Counter("xinghuo_crypto_items_total", float64(op.done.Load()), "operation", op.name, "result", "done")
		sink.Counter("xinghuo_crypto_items_total", float64(op.failed.Load()), "operation", op.name, "result", "failed")
	}
}
