// Command firewall runs the node's guard of its network interface.
package main

import (
	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/services/firewall"
)

func main() { node.Main("firewall", firewall.Run) }
