package journal

import (
	"context"

	"github.com/xinghuo-edge/xinghuo/pkg/journal"
)

type ours struct{ *journal.Journal }

func openOurs(dir string) (log, error) {
	j, err := journal.Open(dir, journal.Options{SegmentBytes: 64 << 20, MaxBytes: 1 << 30}) // etcd's size
	if err != nil {
		return nil, err
	}
	return ours{j}, nil
}

func (o ours) write(ctx context.Context, payload []byte) error {
	_, err := o.Append(ctx, journal.Sample, payload)
	return err
}

func (o ours) close() error { return o.Close() }
