// Command agent supervises the node's services.
package main

import (
	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/services/agent"
)

func main() { node.Main("agent", agent.Run) }
