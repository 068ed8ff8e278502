// Command policy runs the policy service.
package main

import (
	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/services/policy"
)

func main() { node.Main("policy", policy.Run) }
