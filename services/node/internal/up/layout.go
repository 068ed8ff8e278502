package up

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/xinghuo-edge/xinghuo/pkg/settings"
)

// services in the order of their start.
var services = []string{"config", "crypto", "firewall", "policy", "broadcast", "ingest"}

// grace is what a service gets to stop: a trial node need not wait the 30 s of
// an edge box.
const grace = 5 * time.Second

func address(port int) string { return host + ":" + strconv.Itoa(port) }

// layout writes the settings file of every service.
func (f *folder) layout(o Options, self string) error {
	command := []string{self, "{service}"}
	if o.Binaries != "" {
		command = []string{o.binary("{service}")}
	}
	base := settings.DefaultNode()
	own := map[string]map[string]any{
		"ingest": {
			"listen":         address(o.WS),
			"token_key_file": f.tokenKey(),
			"nats_url":       "nats://" + address(o.NATS),
		},
		"broadcast": {"mqtt": map[string]any{"url": "tcp://" + address(o.MQTT)}},
		"config":    {"etcd": map[string]any{"endpoints": []string{"http://" + address(o.Etcd)}}},
		// An up of one's own must not take over what a node of this box has pinned.
		"firewall": {"pin_dir": f.pinDir()},
		"policy":   {},
		"crypto":   {},
		"agent": {
			"listen":   address(o.Agent),
			"services": services,
			"command":  append(command, "-config", f.sub("etc", "{service}.yaml")),
			"log_dir":  f.sub("log"),
		},
	}
	if o.Interface != "" {
		own["firewall"]["interface"] = o.Interface
	}
	for name, keys := range own {
		keys["site"], keys["node"] = base.Site, base.Node
		keys["run_dir"], keys["state_dir"] = f.sub("run"), f.sub("state")
		keys["grace_timeout"] = grace.String()
		raw, err := yaml.Marshal(keys)
		if err != nil {
			return fmt.Errorf("write settings of %s: %w", name, err)
		}
		if err := os.WriteFile(f.settings(name), raw, fileMode); err != nil {
			return fmt.Errorf("write settings of %s: %w", name, err)
		}
	}
	return nil
}

func (f *folder) settings(name string) string { return f.sub("etc", name+".yaml") }
func (f *folder) tokenKey() string            { return f.sub("etc", "token.key") }

// pinDir is where the firewall pins its programs; up removes it at the end.
func (f *folder) pinDir() string {
	return "/sys/fs/bpf/xinghuo-up-" + strconv.Itoa(os.Geteuid())
}
