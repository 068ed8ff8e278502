// Package setting says what a setting is, and which keys and values are
// allowed.
package setting

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/xinghuo-edge/xinghuo/pkg/fault"
)

const (
	// MaxName bounds a setting's name, in bytes.
	MaxName = 128
	// MaxValue bounds a setting's value, in bytes. etcd's own limit for a
	// request is 1.5 MiB.
	MaxValue = 1 << 20
)

// services are those of the node.
var services = []string{"ingest", "broadcast", "firewall", "crypto", "policy", "config", "agent"}

// Key names a setting. It is comparable.
type Key struct {
	Service string `json:"service"`
	Name    string `json:"name"`
}

// String returns `<service>/<name>`, as the key stands in etcd below the
// node's prefix.
func (k Key) String() string { return k.Service + "/" + k.Name }

// Entry is one setting with its value.
type Entry struct {
	Key
	// Value is one YAML document of at most MaxValue bytes.
	Value string `json:"value"`
	// Revision is etcd's ModRevision of the key.
	Revision int64 `json:"revision"`
	// Time is when this node learned of it.
	Time time.Time `json:"time"`
}

// Check returns a fault.FieldError for each part that is not allowed.
func (k Key) Check() error {
	return errors.Join(CheckService(k.Service), checkName(k.Name))
}

// CheckService refuses what is not one of the node's services.
func CheckService(service string) error {
	for _, s := range services {
		if s == service {
			return nil
		}
	}
	return fault.Invalid("service", "must be one of %s, is %s", strings.Join(services, ", "), quote(service))
}

func checkName(name string) error {
	if len(name) == 0 || len(name) > MaxName {
		return fault.Invalid("name", "must be 1 to %d bytes, is %d", MaxName, len(name))
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("_.-", rune(c)) {
			return fault.Invalid("name", "must be of [a-z0-9_.-], is %s", quote(name))
		}
	}
	if strings.Contains(name, "..") {
		return fault.Invalid("name", `must not hold "..", is %s`, quote(name))
	}
	return nil
}

// quote keeps a hostile value from filling an answer or a log line.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		return fmt.Sprintf("%q… (%d bytes)", s[:most], len(s))
	}
	return fmt.Sprintf("%q", s)
}

// ParseKey reads `<service>/<name>`.
func ParseKey(s string) (Key, error) {
	service, name, ok := strings.Cut(s, "/")
	if !ok {
		return Key{}, fault.Invalid("key", "must be <service>/<name>, is %s", quote(s))
	}
	k := Key{service, name}
	return k, k.Check()
}

// decoding lets one value at a time be decoded: a value of 1 MiB may take a
// hundred times as much while it is.
var decoding sync.Mutex

// CheckValue refuses a value that is too long, not UTF-8 or not exactly one
// YAML document. JSON is YAML. The YAML library refuses aliases that blow up.
func CheckValue(value string) error {
	if len(value) > MaxValue {
		return fault.Invalid("value", "must be at most %d bytes, is %d", MaxValue, len(value))
	}
	if !utf8.ValidString(value) {
		return fault.Invalid("value", "must be UTF-8, is %s", quote(value))
	}
	decoding.Lock()
	defer decoding.Unlock()
	dec := yaml.NewDecoder(bytes.NewReader([]byte(value)))
	var doc any
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return fault.Invalid("value", "must be one YAML document, is empty; write null for nothing")
	} else if err != nil {
		return fault.Invalid("value", "must be YAML: %s", clip(err.Error()))
	}
	var more yaml.Node
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return fault.Invalid("value", "must be one YAML document, has more after the first")
	}
	return nil
}

// clip bounds an error text that quotes what was sent, at a rune's edge.
func clip(s string) string {
	const most = 256
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
