// Command broadcast publishes the status of the node's devices.
package main

import (
	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/services/broadcast"
)

func main() { node.Main("broadcast", broadcast.Run) }
