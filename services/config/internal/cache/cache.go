// Package cache keeps the last known settings in a file, so that a node starts
// without etcd.
//
// The file is one JSON object: a version, the SHA-256 of the body's bytes and
// the body. It is written beside and renamed into place, so that a crash leaves
// the old one or the new one.
package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/xinghuo-edge/xinghuo/services/config/internal/setting"
)

const (
	version = 1
	// maxBytes bounds the file: 16 MiB of values may double as JSON strings,
	// and the names come on top.
	maxBytes = 48 << 20
)

// ErrDamaged is a file that cannot be trusted. It was renamed aside.
var ErrDamaged = errors.New("cache is damaged")

// Body is what the file keeps.
type Body struct {
	// Prefix is the etcd prefix that the settings stood below.
	Prefix string `json:"prefix"`
	// Revision is etcd's revision up to which Entries is complete.
	Revision int64 `json:"revision"`
	// Synced is when etcd was last heard.
	Synced time.Time `json:"synced"`
	// Entries are the settings.
	Entries []setting.Entry `json:"entries"`
}

type file struct {
	Version int             `json:"version"`
	SHA256  string          `json:"sha256"`
	Body    json.RawMessage `json:"body"`
}

// File is the cache file of one etcd prefix. It is not safe for concurrent use.
type File struct {
	path   string
	prefix string
}

// Open returns the cache file `cache.json` in dir, and makes dir. Nothing is
// read yet.
func Open(dir, prefix string) (*File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make cache folder: %w", err)
	}
	return &File{filepath.Join(dir, "cache.json"), prefix}, nil
}

// Path returns the file's path.
func (f *File) Path() string { return f.path }

// Load returns what the file keeps; ok is false when there is none. A file that
// is damaged, of another version or of another prefix is renamed to
// `cache.json.damaged` (replacing an older one) and ErrDamaged returned.
func (f *File) Load() (body Body, ok bool, err error) {
	raw, err := f.read()
	if errors.Is(err, fs.ErrNotExist) {
		return Body{}, false, nil
	}
	if err == nil {
		body, err = f.decode(raw)
	}
	if err == nil {
		return body, true, nil
	}
	aside := f.path + ".damaged"
	if rerr := os.Rename(f.path, aside); rerr != nil {
		err = errors.Join(err, fmt.Errorf("put it aside: %w", rerr))
	}
	return Body{}, false, fmt.Errorf("%w, now %s: %w", ErrDamaged, aside, err)
}

func (f *File) read() ([]byte, error) {
	in, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	raw, err := io.ReadAll(io.LimitReader(in, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read cache: %w", err)
	}
	if len(raw) > maxBytes {
		return nil, fmt.Errorf("size must be at most %d bytes, is more", maxBytes)
	}
	return raw, nil
}

func (f *File) decode(raw []byte) (Body, error) {
	var outer file
	if err := strict(raw, &outer); err != nil {
		return Body{}, fmt.Errorf("read file: %w", err)
	}
	if outer.Version != version {
		return Body{}, fmt.Errorf("version must be %d, is %d", version, outer.Version)
	}
	sum := sha256.Sum256(outer.Body)
	if got := hex.EncodeToString(sum[:]); got != outer.SHA256 {
		return Body{}, fmt.Errorf("sha256 of the body must be %q, is %s", outer.SHA256, got)
	}
	var body Body
	if err := strict(outer.Body, &body); err != nil {
		return Body{}, fmt.Errorf("read body: %w", err)
	}
	if body.Prefix != f.prefix {
		return Body{}, fmt.Errorf("prefix must be %q, is %q", f.prefix, body.Prefix)
	}
	seen := make(map[setting.Key]bool, len(body.Entries))
	for _, e := range body.Entries {
		if err := e.Check(); err != nil {
			return Body{}, fmt.Errorf("entry: %w", err)
		}
		if len(e.Value) > setting.MaxValue {
			return Body{}, fmt.Errorf("entry %s: value must be at most %d bytes, is %d", e.Key, setting.MaxValue, len(e.Value))
		}
		if e.Revision < 1 || e.Revision > body.Revision {
			return Body{}, fmt.Errorf("entry %s: revision must be 1 to %d, is %d", e.Key, body.Revision, e.Revision)
		}
		if seen[e.Key] {
			return Body{}, fmt.Errorf("entry %s stands twice", e.Key)
		}
		seen[e.Key] = true
	}
	return body, nil
}

// strict decodes one JSON value with known fields and nothing after it.
func strict(raw []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the end")
	}
	return nil
}

// Save replaces the file. When it returns nil the new one is on disk.
func (f *File) Save(body Body) error {
	body.Prefix = f.prefix
	inner, err := encode(body)
	if err != nil {
		return fmt.Errorf("write cache body: %w", err)
	}
	sum := sha256.Sum256(inner)
	raw, err := encode(file{version, hex.EncodeToString(sum[:]), inner})
	if err != nil {
		return fmt.Errorf("write cache: %w", err)
	}
	if len(raw) > maxBytes {
		return fmt.Errorf("write cache: size must be at most %d bytes, is %d", maxBytes, len(raw))
	}
	if err := replace(f.path, raw); err != nil {
		return fmt.Errorf("write cache: %w", err)
	}
	return nil
}

// encode leaves <, > and & alone: escaped they would take six bytes each.
func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// replace writes beside, syncs, renames and syncs the folder: without the last
// step a power cut may bring the old name back.
func replace(path string, raw []byte) (err error) {
	temp := path + ".new" // one name: a crash leaves at most one behind, and the next write takes it
	out, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = out.Write(raw)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
