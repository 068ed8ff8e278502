package up

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
	// shortLife tells a program that cannot run from one that was ended.
	shortLife = 2 * time.Second
	// outputDelay is how long the last words of an ended process are waited for.
	outputDelay = time.Second
	exitRefused = 2
)

// program is a child process of up.
type program struct {
	name   string
	args   []string // of this binary
	self   string
	stdout io.Writer // nil means the log
	log    string    // file
	// again starts it again when it ends.
	again bool

	mu  sync.Mutex // guards cmd
	cmd *exec.Cmd
}

// run runs the program until ctx ends, then terminates it and waits for limit
// before it kills it. Without again it returns when the program ends.
//
// The thread that starts a child with a death signal is its parent: the signal
// comes when the thread ends (prctl(2), PR_SET_PDEATHSIG). So run holds on to
// its thread.
func (p *program) run(ctx context.Context, limit time.Duration) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pause := firstPause
	for {
		start := time.Now()
		code, err := p.once(ctx, limit)
		if ctx.Err() != nil {
			return nil
		}
		if !p.again {
			return err
		}
		life := time.Since(start)
		if life < shortLife && (code == exitRefused || pause == maxPause) {
			return fmt.Errorf("%s cannot run: %w; its log ends:\n%s", p.name, err, tail(p.log))
		}
		if life >= shortLife {
			pause = firstPause
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		pause = min(2*pause, maxPause)
	}
}

func (p *program) once(ctx context.Context, limit time.Duration) (code int, err error) {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, fileMode)
	if err != nil {
		return -1, fmt.Errorf("start %s: open log: %w", p.name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(ctx, p.self, p.args...)
	cmd.Stdout, cmd.Stderr = p.stdout, log
	if p.stdout == nil {
		cmd.Stdout = log
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = limit // after it CommandContext kills
	if err := cmd.Start(); err != nil {
		return -1, fmt.Errorf("start %s: %w", p.name, err)
	}
	p.hold(cmd)
	err = cmd.Wait()
	p.hold(nil)
	if err != nil {
		return cmd.ProcessState.ExitCode(), fmt.Errorf("%s ended: %w", p.name, err)
	}
	return 0, nil
}

func (p *program) hold(cmd *exec.Cmd) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd = cmd
}

func (p *program) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// kill ends the program at once, if it runs.
func (p *program) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = p.cmd.Process.Kill() // it may have ended
	}
}

// tail returns the end of a log, for an error that is to be read alone.
func tail(path string) string {
	const most = 2 << 10
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	from := max(0, info.Size()-most)
	raw, err := io.ReadAll(io.NewSectionReader(f, from, most))
	if err != nil {
		return err.Error()
	}
	text := strings.ToValidUTF8(strings.TrimSpace(string(raw)), "?")
	if _, rest, ok := strings.Cut(text, "\n"); ok && from > 0 {
		text = rest
	}
	return text
}

// sweep ends what the agent left running, should it have been killed itself. It
// knows them by their arguments: they were started with a settings file of this
// folder. It returns the services that it had to end.
func sweep(ctx context.Context, f *folder, limit time.Duration) []string {
	var swept []string
	for _, name := range append([]string{"agent"}, services...) { // the agent first, or it starts them again
		for _, fd := range holders(f.settings(name)) {
			swept = append(swept, name)
			end(ctx, fd, limit)
			_ = unix.Close(fd)
		}
	}
	return swept
}

// holders returns a pidfd of each process that has `-config <file>` among its
// arguments.
func holders(file string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var fds []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !configuredBy(pid, file) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it has ended
		}
		if !configuredBy(pid, file) { // the pid went to another meanwhile
			_ = unix.Close(fd)
			continue
		}
		fds = append(fds, fd)
	}
	return fds
}

func configuredBy(pid int, file string) bool {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && strings.Contains(string(raw), "\x00-config\x00"+file+"\x00")
}

// end terminates a process, and kills it when it is still there after limit or
// when ctx ends.
func end(ctx context.Context, fd int, limit time.Duration) {
	const step = 20 * time.Millisecond
	_ = unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0)
	for deadline := time.Now().Add(limit); time.Now().Before(deadline) && ctx.Err() == nil; {
		if ended(fd, step) {
			return
		}
	}
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); {
		if ended(fd, step) {
			return
		}
	}
}

// ended waits for at most d.
func ended(pidfd int, d time.Duration) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(d.Milliseconds()))
	return err == nil && n > 0
}
