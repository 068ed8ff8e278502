// Command crypto runs the node's cipher room.
package main

import (
	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/services/crypto"
)

func main() { node.Main("crypto", crypto.Run) }
