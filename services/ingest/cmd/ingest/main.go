// Command ingest runs the ingest service.
package main

import (
	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/services/ingest"
)

func main() { node.Main("ingest", ingest.Run) }
