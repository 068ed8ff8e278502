package natsd

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sys/unix"
)

const (
	// checkPeriod is how often the server is asked how its streams are.
	checkPeriod = time.Second
	// minFree is how much of the disk must be free before streams that could not
	// be written are opened again: about one block of a stream.
	minFree = 8 << 20
)

// keeper sees to it that a full disk is no lasting harm. JetStream never writes
// again to a stream that it once failed to write, not even when there is space;
// only opening the streams anew, from what the disk holds, mends that.
type keeper struct {
	server *server.Server
	dir    string
	memory int64
	store  int64
	report func(fault string)
	told   string
}

// run checks until the server has shut down.
func (k *keeper) run() {
	down := make(chan struct{})
	go func() { // ends with the server
		k.server.WaitForShutdown()
		close(down)
	}()
	tick := time.NewTicker(checkPeriod)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			k.tell(k.check())
		case <-down:
			return
		}
	}
}

// check mends what it can, and returns what is wrong.
func (k *keeper) check() error {
	cause := k.fault()
	if cause == nil || !k.server.Running() {
		return nil
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(k.dir, &disk); err != nil {
		return fmt.Errorf("%w; look at the disk: %w", cause, err)
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < minFree {
		return fmt.Errorf("%w; the disk of %s must have at least %d bytes free, has %d", cause, k.dir, minFree, free)
	}
	if err := k.reopen(); err != nil {
		return fmt.Errorf("%w; open the streams again: %w", cause, err)
	}
	return k.fault()
}

var errDisabled = errors.New("JetStream is switched off")

// fault returns why streams cannot be written, or nil.
func (k *keeper) fault() error {
	if !k.server.JetStreamEnabled() {
		return errDisabled
	}
	// The server has no code of its own for it. Other complaints, such as of a
	// consumer that is being made, mend themselves.
	if h := k.server.Healthz(&server.HealthzOptions{}); strings.Contains(h.Error, "write error") {
		return errors.New(h.Error)
	}
	return nil
}

func (k *keeper) reopen() error {
	if err := k.server.ShutdownJetStream(); err != nil {
		return err
	}
	return k.server.EnableJetStream(&server.JetStreamConfig{
		MaxMemory: k.memory, MaxStore: k.store, StoreDir: k.dir,
	})
}

// tell reports each change between good and bad once.
func (k *keeper) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if (text == "") == (k.told == "") {
		return
	}
	k.told = text
	if k.report != nil {
		k.report(text)
	}
}
