package journal

import (
	"context"
	"fmt"
	"sync"

	"github.com/tidwall/wal"
	etcdwal "go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// batchLog appends several payloads and syncs once. It is not safe for several
// goroutines.
type batchLog interface {
	append(payloads [][]byte) error
	close() error
}

type tidwall struct {
	log   *wal.Log
	index uint64
	batch wal.Batch
}

func openTidwall(dir string) (batchLog, error) {
	l, err := wal.Open(dir, nil) // the default syncs after every write
	if err != nil {
		return nil, fmt.Errorf("open tidwall/wal: %w", err)
	}
	return &tidwall{log: l}, nil
}

func (t *tidwall) append(payloads [][]byte) error {
	t.batch.Clear()
	for _, p := range payloads {
		t.index++
		t.batch.Write(t.index, p)
	}
	return t.log.WriteBatch(&t.batch)
}

func (t *tidwall) close() error { return t.log.Close() }

type etcd struct {
	wal     *etcdwal.WAL
	index   uint64
	entries []*raftpb.Entry
}

func openEtcd(dir string) (batchLog, error) {
	w, err := etcdwal.Create(zap.NewNop(), dir, nil)
	if err != nil {
		return nil, fmt.Errorf("open etcd wal: %w", err)
	}
	return &etcd{wal: w}, nil
}

func (e *etcd) append(payloads [][]byte) error {
	for len(e.entries) < len(payloads) {
		e.entries = append(e.entries, &raftpb.Entry{Term: new(uint64), Index: new(uint64)})
	}
	*e.entries[0].Term = 1
	for i, p := range payloads {
		e.index++
		*e.entries[i].Term, *e.entries[i].Index, e.entries[i].Data = 1, e.index, p
	}
	return e.wal.Save(nil, e.entries[:len(payloads)])
}

func (e *etcd) close() error { return e.wal.Close() }

// single gives each append its own sync, as the peers do.
type single struct {
	mu  sync.Mutex // guards log
	log batchLog
}

func alone(l batchLog, err error) (log, error) {
	if err != nil {
		return nil, err
	}
	return &single{log: l}, nil
}

func (s *single) write(_ context.Context, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.append([][]byte{payload})
}

func (s *single) close() error { return s.log.close() }

// group writes together what waits while the one before is synced.
type group struct {
	log  batchLog
	in   chan request
	done chan struct{}
}

type request struct {
	payload []byte
	result  chan error
}

var results = sync.Pool{New: func() any { return make(chan error, 1) }}

func grouped(l batchLog, err error) (log, error) {
	if err != nil {
		return nil, err
	}
	g := &group{log: l, in: make(chan request, writers), done: make(chan struct{})}
	go g.run()
	return g, nil
}

func (g *group) run() {
	defer close(g.done)
	var requests []request
	var payloads [][]byte
	for first := range g.in {
		requests, payloads = append(requests[:0], first), append(payloads[:0], first.payload)
		for len(g.in) > 0 {
			r := <-g.in
			requests, payloads = append(requests, r), append(payloads, r.payload)
		}
		err := g.log.append(payloads)
		for _, r := range requests {
			r.result <- err
		}
	}
}

func (g *group) write(ctx context.Context, payload []byte) error {
	result := results.Get().(chan error)
	select {
	case g.in <- request{payload, result}:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := <-result // the log answers always
	results.Put(result)
	return err
}

func (g *group) close() error {
	close(g.in)
	<-g.done
	return g.log.close()
}
