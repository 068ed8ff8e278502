package journal

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	quarantineFolder = "quarantine"
	damagedExt       = ".bad"
	maxQuarantined   = 1024    // files; further damage is counted and reported only
	maxKept          = 1 << 20 // bytes of one range that are kept
)

// Damage is a range of a segment that is no record.
type Damage struct {
	// Segment is the segment's id.
	Segment uint64
	// Offset and Length are the range in the segment's file, bytes.
	Offset, Length int64
	// After is the sequence of the last record before the range, 0 for none.
	After uint64
	// Torn is a range that power loss kept from being written. No record that
	// was acknowledged as durable was in it.
	Torn bool
	// Header is the segment's own header, of which a copy was damaged.
	Header bool
}

// String says what and where.
func (d Damage) String() string {
	what := "damage"
	switch {
	case d.Torn:
		what = "torn write"
	case d.Header:
		what = "damaged header"
	}
	return fmt.Sprintf("%s in segment %d at %d, %d bytes, after sequence %d", what, d.Segment, d.Offset, d.Length, d.After)
}

type damageKey struct {
	segment uint64
	offset  int64
}

// damaged sets a range aside, counts it and reports it, once.
func (j *Journal) damaged(s *segment, sc *scanner, it found, after uint64) {
	if it.torn && !s.sealed.Load() {
		return // counted when the segment was opened, where the torn end was cut
	}
	j.report(Damage{Segment: s.id, Offset: it.from, Length: it.to - it.from, After: after},
		func(n int64) []byte { return sc.at(it.from, int(n), it.to) })
}

func (j *Journal) report(d Damage, bytes func(n int64) []byte) {
	key := damageKey{d.Segment, d.Offset}
	j.quarantineMu.Lock()
	if _, known := j.reported[key]; known {
		j.quarantineMu.Unlock()
		return
	}
	if len(j.reported) < 16*maxQuarantined { // bounds memory; what is beyond is reported again
		j.reported[key] = struct{}{}
	}
	keep := len(j.reported) <= maxQuarantined
	j.quarantineMu.Unlock()
	if !d.Torn { // torn ranges are counted where they are found, when a segment is opened
		j.stats.damaged.Add(1)
		j.stats.damagedBytes.Add(uint64(d.Length))
	}
	if keep && bytes != nil {
		if err := j.quarantine(d, bytes(min(d.Length, maxKept))); err != nil {
			j.stats.unquarantined.Add(1)
		}
	}
	if j.opts.OnDamage != nil {
		j.opts.OnDamage(d)
	}
}

// quarantine keeps the bytes of a range. The file is also what remembers that
// the range was reported.
func (j *Journal) quarantine(d Damage, b []byte) error {
	name := j.path(quarantineFolder, fmt.Sprintf("%016x-%016x%s", d.Segment, d.Offset, damagedExt))
	f, err := j.fs.Create(name)
	if err != nil {
		return fmt.Errorf("quarantine %v: %w", d, err)
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("quarantine %v: %w", d, err), j.fs.Remove(name))
	}
	if err := j.fs.SyncDir(j.path(quarantineFolder)); err != nil {
		return fmt.Errorf("quarantine %v: %w", d, err)
	}
	return nil
}

// loadQuarantine remembers what was reported by earlier processes.
func (j *Journal) loadQuarantine() error {
	names, err := j.fs.List(j.path(quarantineFolder))
	if err != nil {
		return fmt.Errorf("list quarantine: %w", err)
	}
	for _, name := range names {
		if key, ok := parseDamage(name); ok {
			j.reported[key] = struct{}{}
		}
	}
	return nil
}

func parseDamage(name string) (damageKey, bool) {
	name, ok := strings.CutSuffix(name, damagedExt)
	if !ok {
		return damageKey{}, false
	}
	id, off, ok := strings.Cut(name, "-")
	if !ok {
		return damageKey{}, false
	}
	segment, err1 := strconv.ParseUint(id, 16, 64)
	offset, err2 := strconv.ParseInt(off, 16, 64)
	return damageKey{segment, offset}, err1 == nil && err2 == nil
}
