package cli

import (
	"context"
	"io"

	"github.com/xinghuo-edge/xinghuo/fleet"
)

func runFleet(ctx context.Context, args []string, out io.Writer) error {
	return fleet.Run(ctx, args, out)
}
