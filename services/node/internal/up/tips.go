package up

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/xinghuo-edge/xinghuo/pkg/settings"
)

// tips are lines to copy into another terminal.
func tips(f *folder, o Options) []string {
	sock := quote(f.sub("run", "ingest.sock"))
	base := settings.DefaultNode()
	command := base64.StdEncoding.EncodeToString([]byte(`{"read":"meter"}`))
	return []string{
		"To try in another terminal (health page: http://" + address(o.Agent) + "/, logs: " + f.sub("log") + "):",
		"  grpcurl -plaintext -unix -d '{\"pageSize\":3}' " + sock + " xinghuo.ingest.v1.IngestService/ListDevices",
		fmt.Sprintf("  grpcurl -plaintext -unix -d '{\"deviceId\":\"meter-0001\",\"payload\":\"%s\"}' %s xinghuo.ingest.v1.IngestService/SendCommand", command, sock),
		"  mosquitto_sub -h " + host + " -p " + strconv.Itoa(o.MQTT) + " -q 1 -v -t 'xinghuo/" + base.Site + "/" + base.Node + "/devices/+/status'",
	}
}

// quote makes a path one word of a shell.
func quote(path string) string {
	safe := strings.IndexFunc(path, func(r rune) bool {
		return !strings.ContainsRune("/._-+", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) < 0
	if safe {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
