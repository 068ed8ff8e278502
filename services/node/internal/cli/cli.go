// Package cli is the xinghuo command: it hands each subcommand to its program.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"

	"github.com/xinghuo-edge/xinghuo/pkg/bus"
	"github.com/xinghuo-edge/xinghuo/pkg/devicetoken"
	"github.com/xinghuo-edge/xinghuo/pkg/node"
	"github.com/xinghuo-edge/xinghuo/pkg/settings"
	"github.com/xinghuo-edge/xinghuo/services/node/internal/doctor"
	"github.com/xinghuo-edge/xinghuo/services/node/internal/up"
)

const help = `Xinghuo is an edge node for power-grid and industrial IoT, in one binary.

Usage: xinghuo <command> [flags]

To try it out:
  up          run a whole node here, with simulated meters; Ctrl-C stops it
  doctor      check this machine, and say how to mend what is missing
  fleet       run simulated meters against a node
  token       print a device's token

The services, each a process of its own:
  agent       starts and supervises the others; metrics, health, profiles
  ingest      takes in devices' readings, sends them commands
  policy      decides on readings
  broadcast   publishes devices' status to MQTT
  crypto      seals and signs (SM2, SM3, SM4)
  firewall    guards the box in the kernel
  config      serves the settings that are kept in etcd

  version     print the version
  help        print this

` + "`xinghuo <command> -h` tells a command's flags.\n"

// Main runs the command that args name and returns its exit code.
func Main(args []string, out, errs io.Writer) int {
	if len(args) == 0 {
		_, _ = fmt.Fprint(errs, help)
		return node.ExitBadConfig
	}
	name, rest := args[0], args[1:]
	switch name {
	case "help", "-h", "-help", "--help":
		_, _ = fmt.Fprint(out, help)
		return node.ExitOrderly
	case "version", "-version", "--version":
		_, _ = fmt.Fprintf(out, "xinghuo %s %s %s/%s\n", node.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return node.ExitOrderly
	case "up":
		return runUp(rest, out, errs)
	case "doctor":
		return exit(name, errs, doctor.Run(rest, out))
	case "token":
		return exit(name, errs, token(rest, out))
	case "fleet":
		return node.Exec(name, rest, func(ctx context.Context, args []string, _ io.Writer) error {
			return runFleet(ctx, args, out)
		})
	}
	if run, ok := services[name]; ok {
		return node.Exec(name, rest, run)
	}
	_, _ = fmt.Fprintf(errs, "xinghuo: there is no command %q; see `xinghuo help`\n", name)
	return node.ExitBadConfig
}

func exit(name string, errs io.Writer, err error) int {
	var bad *settings.Error
	switch {
	case err == nil, errors.Is(err, settings.ErrDone):
		return node.ExitOrderly
	case errors.As(err, &bad):
		_, _ = fmt.Fprintln(errs, bad)
		return node.ExitBadConfig
	}
	_, _ = fmt.Fprintf(errs, "xinghuo %s: %v\n", name, err)
	return node.ExitFailed
}

// runUp ends up in order at the first signal, and by force at the second.
func runUp(args []string, out, errs io.Writer) int {
	// When the reader of a pipe goes, up stops in order: the write fails.
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	force := make(chan struct{})
	done := make(chan struct{})
	defer close(done)
	go func() { // ends with the command
		select {
		case <-signals:
			cancel()
		case <-done:
			return
		}
		select {
		case <-signals:
			close(force)
		case <-done:
		}
	}()
	return exit("up", errs, up.Run(ctx, args, out, force))
}

const tokenUsage = `Usage: xinghuo token ID --key FILE

Prints the token by which the device ID opens the node's door. FILE is the
node's token key: the setting token_key_file of ingest.
`

func token(args []string, out io.Writer) error {
	var id, file string
	var faults []error
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case slices.Contains([]string{"-h", "-help", "--help"}, arg):
			_, _ = fmt.Fprint(out, tokenUsage)
			return settings.ErrDone
		case (arg == "--key" || arg == "-key") && i+1 < len(args):
			i++
			file = args[i]
		case len(arg) > 6 && arg[:6] == "--key=":
			file = arg[6:]
		case id == "" && arg != "" && arg[0] != '-':
			id = arg
		default:
			faults = append(faults, fmt.Errorf("arguments: want ID --key FILE, found %q", arg))
		}
	}
	if !bus.IsToken(id) {
		faults = append(faults, fmt.Errorf("ID: must be 1 to 64 of [A-Za-z0-9_-], is %q", id))
	}
	if file == "" {
		faults = append(faults, errors.New("--key: must name the node's token key file, is empty"))
	}
	if len(faults) > 0 {
		return &settings.Error{Service: "token", Faults: faults}
	}
	key, err := devicetoken.Load(file)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, key.Token(id))
	return err
}
