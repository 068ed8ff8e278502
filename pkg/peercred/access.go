package peercred

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/xinghuo-edge/xinghuo/pkg/internal/smallfile"
)

// Access says which uid may call which method. The zero value lets in root and
// the service's own uid, which may always call everything: root could anyway,
// and a service that shut itself out could not be administered.
type Access struct {
	self  uint32
	roles map[uint32][]role
}

type role struct {
	name     string
	patterns []string
}

// file is access.yaml:
//
//	version: 1
//	roles:
//	  operator:
//	    uids: [1000]
//	    methods: ["/xinghuo.*/Get*", "/xinghuo.*/List*"]
//
// A method pattern is matched against the full method name by path.Match,
// separately for the service and the method.
type file struct {
	Version int                 `yaml:"version"`
	Roles   map[string]fileRole `yaml:"roles"`
}

type fileRole struct {
	UIDs    []uint32 `yaml:"uids"`
	Methods []string `yaml:"methods"`
}

const (
	accessVersion  = 1
	maxAccessBytes = 1 << 20 // caps what a wrong path may load
)

// public may be called by everyone who can open the socket: the kernel's
// permission on the file has let them in already, and a health probe has no
// business needing a role.
var public = []string{"/grpc.health.v1.Health/*"}

// LoadAccess reads access.yaml; an empty path means no roles beyond root and
// the service's own uid. Every fault of the file is in the error.
func LoadAccess(name string) (*Access, error) {
	a := &Access{self: uint32(os.Geteuid())}
	if name == "" {
		return a, nil
	}
	raw, err := smallfile.Read(name, maxAccessBytes)
	if err != nil {
		return nil, fmt.Errorf("read access file: %w", err)
	}
	if err := a.parse(raw); err != nil {
		return nil, fmt.Errorf("access file %s: %w", name, err)
	}
	return a, nil
}

func (a *Access) parse(raw []byte) error {
	var f file
	dec := yaml.NewDecoder(strings.NewReader(string(raw)))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil {
		return err
	}
	var faults []error
	if f.Version != accessVersion {
		faults = append(faults, fmt.Errorf("version: must be %d, is %d", accessVersion, f.Version))
	}
	a.roles = make(map[uint32][]role)
	for name, r := range f.Roles {
		for _, p := range r.Methods {
			if _, err := path.Match(p, "/"); err != nil || strings.Count(p, "/") != 2 || !strings.HasPrefix(p, "/") {
				faults = append(faults, fmt.Errorf("roles.%s.methods: must look like /package.Service/Method, is %q", name, p))
			}
		}
		for _, uid := range r.UIDs {
			a.roles[uid] = append(a.roles[uid], role{name, r.Methods})
		}
	}
	return errors.Join(faults...)
}

// Allows reports whether uid may call the full method, and by which role.
func (a *Access) Allows(uid uint32, method string) (roleName string, ok bool) {
	for _, p := range public {
		if match(p, method) {
			return "public", true
		}
	}
	if uid == 0 {
		return "root", true
	}
	if uid == a.self {
		return "self", true
	}
	for _, r := range a.roles[uid] {
		for _, p := range r.patterns {
			if match(p, method) {
				return r.name, true
			}
		}
	}
	return "", false
}

func match(pattern, method string) bool {
	ok, err := path.Match(pattern, method)
	return err == nil && ok
}
