// Command config is the config service on its own.
package main

import (
	"github.com/xinghuo-edge/xinghuo/pkg/node"

	"github.com/xinghuo-edge/xinghuo/services/config"
)

func main() { node.Main("config", config.Run) }
