package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
)

const (
	slotSize  = 64
	slotSpace = 4096 // slots share no sector
)

var slotMagic = []byte("XHSLOT\r\n")

// slotFile is a few numbers that are replaced whole or not at all. Its blocks
// are written when it is made, so that a full disk cannot stop it.
type slotFile struct {
	f          File
	generation uint64
	values     [4]uint64
	hurt       bool // a slot was damaged when the file was opened
}

// openSlots opens a slot file or makes it with the values initial.
func openSlots(fsys FS, name string, initial [4]uint64) (*slotFile, error) {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return createSlots(fsys, name, initial)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	s := &slotFile{f: f, values: initial}
	if err := s.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", name, err), f.Close())
	}
	return s, nil
}

func createSlots(fsys FS, name string, initial [4]uint64) (*slotFile, error) {
	f, err := fsys.Create(name)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	s := &slotFile{f: f, values: initial}
	_, err = f.WriteAt(make([]byte, 2*slotSpace), 0)
	if err == nil {
		err = s.store(initial)
	}
	if err == nil {
		err = fsys.SyncDir(path.Dir(name))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create %s: %w", name, err), f.Close(), fsys.Remove(name))
	}
	return s, nil
}

// read takes the newer of the slots that are whole. With neither the values
// stay what they are.
func (s *slotFile) read() error {
	var b [slotSpace + slotSize]byte
	if n, err := s.f.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) && n == 0 {
		s.hurt = true // as unreadable as a wrong CRC; the journal opens all the same
		return nil
	}
	for off := 0; off <= slotSpace; off += slotSpace {
		slot := b[off : off+slotSize]
		if !goodHeader(slot, slotMagic) {
			s.hurt = s.hurt || !allZero(slot)
			continue
		}
		if slot[8] > version {
			return fmt.Errorf("version %d, this program reads up to %d: %w", slot[8], version, ErrVersion)
		}
		if g := le.Uint64(slot[16:]); g > s.generation {
			s.generation = g
			for i := range s.values {
				s.values[i] = le.Uint64(slot[24+8*i:])
			}
		}
	}
	return nil
}

// store writes the values into the older slot and syncs it.
func (s *slotFile) store(values [4]uint64) error {
	var b [slotSize]byte
	copy(b[:], slotMagic)
	b[8] = version
	le.PutUint64(b[16:], s.generation+1)
	for i, v := range values {
		le.PutUint64(b[24+8*i:], v)
	}
	le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	if _, err := s.f.WriteAt(b[:], int64(s.generation%2)*slotSpace); err != nil {
		return err
	}
	if err := s.f.Sync(); err != nil {
		return err
	}
	s.generation++
	s.values = values
	return nil
}
