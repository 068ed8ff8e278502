// Package settings reads a service's bootstrap configuration: strictly, and
// with every fault named at once.
//
// A settings struct states its defaults by its values before Load, its keys by
// `yaml` tags and its help by `usage` tags. A key is taken, the later one
// winning, from the YAML file, from the environment
// (XINGHUO_<SERVICE>_<KEY>, dots and dashes as underscores) and from flags
// (-key, with dots between nested keys).
package settings

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Error lists every fault of a configuration.
type Error struct {
	Service string
	Faults  []error
}

// Error returns a line for each fault.
func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Faults)+1)
	lines = append(lines, fmt.Sprintf("bad configuration of %s, %d fault(s):", e.Service, len(e.Faults)))
	for _, f := range e.Faults {
		lines = append(lines, "  "+f.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the faults.
func (e *Error) Unwrap() []error { return e.Faults }

// Checker is implemented by settings that have rules beyond their types. Each
// error is to name the key, the limit and the value.
type Checker interface {
	Check() []error
}

// ErrDone is returned by Load when the arguments asked for something that is
// done now (-h, -check): the program is to end with exit code 0.
var ErrDone = errors.New("done")

// Load fills cfg, a pointer to a struct, for a service from args and the
// environment. Help and the result of -check go to out. The error is ErrDone or
// an *Error.
func Load(service string, args []string, cfg any, out io.Writer) error {
	keys, err := keysOf(cfg)
	if err != nil {
		return err
	}
	fs := flag.NewFlagSet(service, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // faults are reported together, below
	defaultFile := "/etc/xinghuo/" + service + ".yaml"
	file := fs.String("config", "", "settings `file`; the default "+defaultFile+" may be missing")
	check := fs.Bool("check", false, "check the settings, say so and exit")
	given := make(map[string]string)
	for _, k := range keys {
		set := func(text string) error { given[k.name] = text; return nil }
		if k.isBool() {
			fs.BoolFunc(k.name, k.usage, set)
		} else {
			fs.Func(k.name, k.usage, set)
		}
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			usage(out, service, defaultFile, keys)
			return ErrDone
		}
		return &Error{service, []error{err}}
	}

	var faults []error
	if fs.NArg() > 0 {
		faults = append(faults, fmt.Errorf("arguments: none are taken, found %q", fs.Args()))
	}
	faults = append(faults, readFile(*file, defaultFile, keys)...)
	faults = append(faults, readEnv(service, os.Environ(), keys)...)
	for _, k := range keys {
		if text, ok := given[k.name]; ok {
			if err := k.set(text); err != nil {
				faults = append(faults, fmt.Errorf("flag -%s: %w", k.name, err))
			}
		}
	}
	if c, ok := cfg.(Checker); ok {
		faults = append(faults, c.Check()...)
	}
	if len(faults) > 0 {
		return &Error{service, faults}
	}
	if *check {
		_, _ = fmt.Fprintf(out, "%s: settings are good\n", service)
		return ErrDone
	}
	return nil
}

// readEnv takes XINGHUO_<SERVICE>_* from the environment; an unknown key there
// is a fault, because a misspelt one would be silently without effect.
func readEnv(service string, environ []string, keys []key) []error {
	prefix := "XINGHUO_" + envName(service) + "_"
	byEnv := make(map[string]key, len(keys))
	for _, k := range keys {
		byEnv[prefix+envName(k.name)] = k
	}
	var faults []error
	for _, kv := range slices.Sorted(slices.Values(environ)) {
		name, text, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		k, ok := byEnv[name]
		if !ok {
			faults = append(faults, fmt.Errorf("environment: unknown key %s", name))
			continue
		}
		if err := k.set(text); err != nil {
			faults = append(faults, fmt.Errorf("environment %s: %w", name, err))
		}
	}
	return faults
}

func envName(s string) string {
	return strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(s))
}

func usage(out io.Writer, service, defaultFile string, keys []key) {
	_, _ = fmt.Fprintf(out, "Usage: %s [flags]\n\nSettings come from a YAML file (-config, default %s), then from\nXINGHUO_%s_<KEY> in the environment, then from flags.\n\n", service, defaultFile, envName(service))
	_, _ = fmt.Fprint(out, "  -config file\n        settings file\n  -check\n        check the settings, say so and exit\n")
	for _, k := range keys {
		_, _ = fmt.Fprintf(out, "  -%s %s\n        %s (default %s)\n", k.name, k.typeName(), k.usage, k.text())
	}
}
