package cli

import (
	"context"
	"io"

	"github.com/xinghuo-edge/xinghuo/services/agent"
	"github.com/xinghuo-edge/xinghuo/services/broadcast"
	"github.com/xinghuo-edge/xinghuo/services/config"
	"github.com/xinghuo-edge/xinghuo/services/crypto"
	"github.com/xinghuo-edge/xinghuo/services/firewall"
	"github.com/xinghuo-edge/xinghuo/services/ingest"
	"github.com/xinghuo-edge/xinghuo/services/policy"
)

// run is a whole program, as every service is one.
type run func(ctx context.Context, args []string, logs io.Writer) error

// services are the programs that this binary holds.
var services = map[string]run{
	"agent":     agent.Run,
	"broadcast": broadcast.Run,
	"config":    config.Run,
	"crypto":    crypto.Run,
	"firewall":  firewall.Run,
	"ingest":    ingest.Run,
	"policy":    policy.Run,
}
