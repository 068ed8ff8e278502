// Package bootstrap holds the config service's own settings: what it must know
// before it can reach etcd.
package bootstrap

import (
	"fmt"
	"net/url"
	"time"

	"github.com/xinghuo-edge/xinghuo/pkg/settings"
)

// Settings are the service's settings.
type Settings struct {
	settings.Node `yaml:",inline"`

	Etcd Etcd `yaml:"etcd"`
}

// Etcd says how etcd is reached.
type Etcd struct {
	Endpoints      []string      `yaml:"endpoints" usage:"URLs of etcd's members, all http or all https"`
	DialTimeout    time.Duration `yaml:"dial_timeout" usage:"how long logging in to etcd may take, 100ms to 60s"`
	RequestTimeout time.Duration `yaml:"request_timeout" usage:"how long one request to etcd may take, 100ms to 60s"`
	Heartbeat      time.Duration `yaml:"heartbeat" usage:"how often etcd is asked whether it is there, 10ms to 60s; after three without an answer it counts as away"`
	User           string        `yaml:"user" usage:"etcd user; empty means no authentication"`
	PasswordFile   string        `yaml:"password_file" usage:"file with the etcd user's password"`
	CAFile         string        `yaml:"ca_file" usage:"PEM certificates that etcd's certificate must stem from; empty means the system's"`
	CertFile       string        `yaml:"cert_file" usage:"PEM certificate that this node shows to etcd"`
	KeyFile        string        `yaml:"key_file" usage:"PEM key of cert_file"`
}

// maxEndpoints is more than any etcd cluster has members.
const maxEndpoints = 16

// Default returns the settings of an edge box with an etcd of its own.
func Default() Settings {
	return Settings{
		Node: settings.DefaultNode(),
		Etcd: Etcd{
			Endpoints:   []string{"http://127.0.0.1:2379"},
			DialTimeout: 5 * time.Second, RequestTimeout: 5 * time.Second, Heartbeat: time.Second,
		},
	}
}

// Prefix returns the etcd prefix of the node's settings, with its last slash.
func (s *Settings) Prefix() string { return "/xinghuo/" + s.Site + "/" + s.Node.Node + "/" }

// Check implements settings.Checker.
func (s *Settings) Check() []error { return append(s.Node.Check(), s.Etcd.check()...) }

func (e *Etcd) check() []error {
	var faults []error
	add := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	add(settings.IntIn("etcd.endpoints: count", len(e.Endpoints), 1, maxEndpoints))
	schemes := make(map[string]bool)
	for i, ep := range e.Endpoints {
		u, err := url.Parse(ep)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.Port() == "" || (u.Path != "" && u.Path != "/") || u.User != nil {
			add(fmt.Errorf("etcd.endpoints[%d]: must look like http://host:port or https://host:port, is %q", i, ep))
			continue
		}
		schemes[u.Scheme] = true
	}
	if len(schemes) > 1 {
		add(fmt.Errorf("etcd.endpoints: must be all http or all https, is %q", e.Endpoints))
	}
	if !schemes["https"] && (e.CAFile != "" || e.CertFile != "") {
		add(fmt.Errorf("etcd.endpoints: must be https with ca_file or cert_file, is %q", e.Endpoints))
	}
	add(settings.DurationIn("etcd.dial_timeout", e.DialTimeout, 100*time.Millisecond, time.Minute))
	add(settings.DurationIn("etcd.request_timeout", e.RequestTimeout, 100*time.Millisecond, time.Minute))
	add(settings.DurationIn("etcd.heartbeat", e.Heartbeat, 10*time.Millisecond, time.Minute))
	if (e.User == "") != (e.PasswordFile == "") {
		add(fmt.Errorf("etcd.password_file: must be given with etcd.user and only then, is %q with user %q", e.PasswordFile, e.User))
	}
	if (e.CertFile == "") != (e.KeyFile == "") {
		add(fmt.Errorf("etcd.key_file: must be given with etcd.cert_file and only then, is %q with %q", e.KeyFile, e.CertFile))
	}
	return faults
}
