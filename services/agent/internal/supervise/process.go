package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	logMode    = 0o640
	logDirMode = 0o750
	// outputDelay is how long the last words of an ended process are waited
	// for, should a child of its own hold its output open.
	outputDelay = time.Second
)

// Exec launches services as processes of this machine.
type Exec struct {
	// Command is the program and its arguments; {service} stands for the name.
	Command []string
	// Env is added to this process's environment.
	Env []string
	// Logs takes what services write, when LogDir is empty.
	Logs io.Writer
	// LogDir is where each service's output is appended to <service>.log. A
	// service that outlives its agent goes on writing there.
	LogDir string
}

// LogFile returns where a service's output goes.
func (e *Exec) LogFile(service string) string { return filepath.Join(e.LogDir, service+".log") }

// Trim bounds the log files of services.
func (e *Exec) Trim(services []string) error {
	if e.LogDir == "" {
		return nil
	}
	var errs []error
	for _, name := range services {
		if err := trim(e.LogFile(name), maxLog); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("trim log of %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Start implements Launcher. The process has a group of its own, so that a
// terminal's Ctrl-C reaches it only through the agent, and no death signal: it
// outlives an agent that is killed.
func (e *Exec) Start(service string) (Process, error) {
	args := make([]string, len(e.Command))
	for i, a := range e.Command {
		args[i] = strings.ReplaceAll(a, "{service}", service)
	}
	c := &child{done: make(chan struct{})}
	c.cmd = exec.Command(args[0], args[1:]...)
	c.cmd.Env = append(os.Environ(), e.Env...)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.cmd.WaitDelay = outputDelay
	if e.LogDir == "" {
		out := &lines{service: service, out: e.Logs}
		c.cmd.Stdout, c.cmd.Stderr = out, out
		c.last = out.last
	} else {
		f, offset, err := e.openLog(service)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // the child has its own
		c.cmd.Stdout, c.cmd.Stderr = f, f
		c.last = func() string { return fileTail(e.LogFile(service), offset) }
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", service, err)
	}
	go c.wait() // ends with the process
	return c, nil
}

func (e *Exec) openLog(service string) (f *os.File, size int64, err error) {
	if err := os.MkdirAll(e.LogDir, logDirMode); err != nil {
		return nil, 0, fmt.Errorf("make log folder: %w", err)
	}
	f, err = os.OpenFile(e.LogFile(service), os.O_CREATE|os.O_APPEND|os.O_WRONLY, logMode)
	if err != nil {
		return nil, 0, fmt.Errorf("open log of %s: %w", service, err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, fmt.Errorf("open log of %s: %w", service, err)
	}
	return f, info.Size(), nil
}

// Adopt implements Launcher. It holds the process by a pidfd (pidfd_open(2)):
// whatever happens to the number, the descriptor means this process.
func (*Exec) Adopt(service string, pid int) (Process, error) {
	if pid <= 1 {
		return nil, fmt.Errorf("adopt %s: pid must be over 1, is %d", service, pid)
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("adopt %s: pidfd_open %d: %w", service, pid, err)
	}
	a := &adopted{pid: pid, fd: os.NewFile(uintptr(fd), "pidfd:"+strconv.Itoa(pid)), done: make(chan struct{})}
	raw, err := a.fd.SyscallConn()
	if err != nil {
		_ = a.fd.Close()
		return nil, fmt.Errorf("adopt %s: %w", service, err)
	}
	a.raw = raw
	go a.wait() // ends with the process, or with Release
	return a, nil
}

// child is a process that this agent started.
type child struct {
	cmd  *exec.Cmd
	last func() string
	done chan struct{}
	exit Exit // set before done is closed
}

func (c *child) wait() {
	defer close(c.done)
	err := c.cmd.Wait()
	c.exit = Exit{Code: -1, Output: c.last()}
	if st := c.cmd.ProcessState; st != nil {
		c.exit.Code, c.exit.Text = st.ExitCode(), st.String()
	} else {
		c.exit.Text = fmt.Sprint(err)
	}
}

func (c *child) PID() int              { return c.cmd.Process.Pid }
func (c *child) Done() <-chan struct{} { return c.done }
func (c *child) Exit() Exit            { return c.exit }
func (c *child) Terminate() error      { return ended(c.cmd.Process.Signal(syscall.SIGTERM)) }
func (c *child) Kill() error           { return ended(c.cmd.Process.Kill()) }

// Release implements Process: the process lives on, and is nobody's to wait
// for when this one ends.
func (*child) Release() {}

func ended(err error) error {
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// adopted is a process that another agent started.
type adopted struct {
	pid  int
	fd   *os.File
	raw  syscall.RawConn
	done chan struct{}
}

// wait lets the runtime's poller watch the pidfd, which becomes readable when
// the process ends.
func (a *adopted) wait() {
	defer close(a.done)
	_ = a.raw.Read(func(fd uintptr) bool { // fails only when Release closed it
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || (err != nil && !errors.Is(err, unix.EINTR))
	})
}

func (a *adopted) PID() int              { return a.pid }
func (a *adopted) Done() <-chan struct{} { return a.done }
func (a *adopted) Terminate() error      { return a.signal(unix.SIGTERM) }
func (a *adopted) Kill() error           { return a.signal(unix.SIGKILL) }

// Exit implements Process. Only a parent learns how its child ended.
func (a *adopted) Exit() Exit {
	_ = a.fd.Close()
	return Exit{Code: -1, Text: "ended; it was adopted, so its exit status is not known"}
}

func (a *adopted) signal(sig unix.Signal) error {
	var serr error
	err := a.raw.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	return ended(errors.Join(err, serr))
}

func (a *adopted) Release() {
	_ = a.fd.Close()
	<-a.done
}

// TrimEvery calls Trim until ctx ends.
func (e *Exec) TrimEvery(ctx context.Context, every time.Duration, services []string, report func(error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := e.Trim(services); err != nil {
			report(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
