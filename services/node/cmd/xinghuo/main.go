// Command xinghuo is the whole node in one binary.
package main

import (
	"os"

	"github.com/xinghuo-edge/xinghuo/services/node/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr)) }
