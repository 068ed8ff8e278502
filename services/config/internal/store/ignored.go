package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

const (
	// maxIgnored bounds the memory of keys that break the rules: anyone who
	// may write to etcd may write as many as they like.
	maxIgnored = 1024
	// maxKey is longer than any key that is allowed.
	maxKey = 256
)

func clipKey(key string) string {
	if len(key) > maxKey {
		return key[:maxKey]
	}
	return key
}

// note remembers a key that is refused.
func (s *Store) note(refused map[string]error, key string, err error) {
	if len(refused) < maxIgnored {
		refused[clipKey(key)] = err
	}
}

// reportIgnored tells which keys break the rules. It is called with mu held.
func (s *Store) reportIgnored(ctx context.Context) {
	if len(s.ignored) == 0 {
		s.Degrade("settings", "")
		return
	}
	first := slices.Min(slices.Collect(maps.Keys(s.ignored)))
	s.Degrade("settings", fmt.Sprintf("%d key(s) in etcd are ignored, among them %q: %s", len(s.ignored), first, s.ignored[first]))
	s.Log.WarnContext(ctx, "keys in etcd are ignored", "count", len(s.ignored), "first", first, "reason", s.ignored[first])
}
