// Package ports says whether a TCP port is free and who holds it.
package ports

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Holder is the process that listens on a port.
type Holder struct {
	PID  int
	Name string
}

// String names the process, or says that it is not known.
func (h Holder) String() string {
	if h.PID == 0 {
		return "a process of another user"
	}
	return fmt.Sprintf("%s (pid %d)", h.Name, h.PID)
}

// Check returns nil when this process could listen on host:port, and an error
// that names the holder when the port is taken.
func Check(host string, port int) error {
	ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err == nil {
		return ln.Close()
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return &TakenError{Port: port, Holder: HolderOf(port)}
	}
	return fmt.Errorf("listen on port %d: %w", port, err)
}

// TakenError is a port on which another process listens.
type TakenError struct {
	Port   int
	Holder Holder
}

// Error names the port and its holder.
func (e *TakenError) Error() string {
	return fmt.Sprintf("port %d is taken by %v; see `ss -ltnp sport = :%d`", e.Port, e.Holder, e.Port)
}

// Free returns n ports that nobody listens on now, all different.
func Free(host string, n int) ([]int, error) {
	free := make([]int, 0, n)
	for range n {
		ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer ln.Close() // all at the end, so that none comes twice
		tcp, ok := ln.Addr().(*net.TCPAddr)
		if !ok {
			return nil, fmt.Errorf("find a free port: %v is no TCP address", ln.Addr())
		}
		free = append(free, tcp.Port)
	}
	return free, nil
}

// HolderOf looks up who listens on a port: the socket's inode in
// /proc/net/tcp{,6} (proc_pid_net(5)), and the process that has it open. The
// zero Holder means that this process may not see it.
func HolderOf(port int) Holder {
	inodes := make(map[string]bool)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		listeners(table, port, inodes)
	}
	if len(inodes) == 0 {
		return Holder{}
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		link, err := os.Readlink(fd)
		if err != nil || !inodes[link] {
			continue
		}
		dir := strings.Split(fd, "/")[2]
		pid, err := strconv.Atoi(dir)
		if err != nil {
			continue
		}
		name, _ := os.ReadFile("/proc/" + dir + "/comm")
		return Holder{PID: pid, Name: strings.TrimSpace(string(name))}
	}
	return Holder{}
}

// listeners adds `socket:[inode]` of each listening socket on port.
func listeners(table string, port int, inodes map[string]bool) {
	f, err := os.Open(table)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	const (
		local, state, inode = 1, 3, 9
		listen              = "0A"
	)
	want := fmt.Sprintf(":%04X", port)
	for s := bufio.NewScanner(f); s.Scan(); {
		cols := strings.Fields(s.Text())
		if len(cols) > inode && strings.HasSuffix(cols[local], want) && cols[state] == listen {
			inodes["socket:["+cols[inode]+"]"] = true
		}
	}
}
