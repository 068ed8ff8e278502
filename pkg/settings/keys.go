package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/xinghuo-edge/xinghuo/pkg/internal/smallfile"
)

// maxFileBytes caps what a wrong path may load.
const maxFileBytes = 1 << 20

// key is one setting: a leaf of the settings struct.
type key struct {
	name  string // dotted path
	usage string
	value reflect.Value
}

var durationType = reflect.TypeFor[time.Duration]()

// keysOf lists the leaves of *cfg in the order of their declaration.
func keysOf(cfg any) ([]key, error) {
	v := reflect.ValueOf(cfg)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil, fmt.Errorf("settings: want a pointer to a struct, have %T", cfg)
	}
	return collect("", v.Elem()), nil
}

func collect(prefix string, v reflect.Value) []key {
	var keys []key
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case opts == "inline":
			keys = append(keys, collect(prefix, v.Field(i))...)
		case f.Type.Kind() == reflect.Struct:
			keys = append(keys, collect(prefix+name+".", v.Field(i))...)
		default:
			keys = append(keys, key{prefix + name, f.Tag.Get("usage"), v.Field(i)})
		}
	}
	return keys
}

func (k key) isBool() bool { return k.value.Kind() == reflect.Bool }

func (k key) typeName() string {
	if k.value.Type() == durationType {
		return "duration"
	}
	return k.value.Kind().String()
}

func (k key) text() string {
	if k.value.Kind() == reflect.String {
		return fmt.Sprintf("%q", k.value.String())
	}
	return fmt.Sprint(k.value.Interface())
}

// set takes a value in text, as environment and flags give it. Strings are
// taken as they are, everything else is read as YAML.
func (k key) set(text string) error {
	if k.value.Kind() == reflect.String {
		k.value.SetString(text)
		return nil
	}
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(text), &node); err != nil || len(node.Content) == 0 {
		return fmt.Errorf("must be a %s, is %q", k.typeName(), text)
	}
	return k.decode(node.Content[0])
}

func (k key) decode(node *yaml.Node) error {
	fresh := reflect.New(k.value.Type()) // so that a bad value leaves the default
	if err := node.Decode(fresh.Interface()); err != nil {
		what := node.Value
		if node.Kind != yaml.ScalarNode {
			what = "a " + kindName(node.Kind)
		}
		return fmt.Errorf("must be a %s, is %q", k.typeName(), what)
	}
	k.value.Set(fresh.Elem())
	return nil
}

func kindName(kind yaml.Kind) string {
	switch kind {
	case yaml.MappingNode:
		return "mapping"
	case yaml.SequenceNode:
		return "list"
	default:
		return "scalar"
	}
}

// readFile reads the settings file. Only the default one may be missing.
func readFile(name, defaultName string, keys []key) []error {
	optional := name == ""
	if optional {
		name = defaultName
	}
	raw, err := smallfile.Read(name, maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) && optional {
		return nil
	}
	if err != nil {
		return []error{fmt.Errorf("settings file: %w", err)}
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return []error{fmt.Errorf("settings file %s: %w", name, err)}
	}
	if len(doc.Content) == 0 {
		return nil // an empty file sets nothing
	}
	if doc.Content[0].Kind != yaml.MappingNode {
		return []error{fmt.Errorf("settings file %s: must be a mapping", name)}
	}
	return walk(name, "", doc.Content[0], keys)
}

// walk hands each leaf of a YAML mapping to its key, and collects what is
// unknown, doubled or of the wrong type.
func walk(file, prefix string, m *yaml.Node, keys []key) []error {
	var faults []error
	seen := make(map[string]bool)
	for i := 0; i+1 < len(m.Content); i += 2 {
		name, node := prefix+m.Content[i].Value, m.Content[i+1]
		at := fmt.Sprintf("%s:%d", file, m.Content[i].Line)
		if seen[name] {
			faults = append(faults, fmt.Errorf("%s: key %s stands twice", at, name))
			continue
		}
		seen[name] = true
		leaf, branch := find(keys, name)
		switch {
		case leaf != nil:
			if err := leaf.decode(node); err != nil {
				faults = append(faults, fmt.Errorf("%s: %s: %w", at, name, err))
			}
		case branch && node.Kind == yaml.MappingNode:
			faults = append(faults, walk(file, name+".", node, keys)...)
		case branch:
			faults = append(faults, fmt.Errorf("%s: %s: must be a mapping", at, name))
		default:
			faults = append(faults, fmt.Errorf("%s: unknown key %s", at, name))
		}
	}
	return faults
}

// find returns the key of that name, or whether keys lie below it.
func find(keys []key, name string) (leaf *key, branch bool) {
	for i := range keys {
		if keys[i].name == name {
			return &keys[i], false
		}
		branch = branch || strings.HasPrefix(keys[i].name, name+".")
	}
	return nil, branch
}
