// Package proc reads what processes cost from /proc (proc(5)).
package proc

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Process is one process of a tree.
type Process struct {
	PID int
	// Args is its command line.
	Args []string
}

// Tree returns a process and all below it, ordered by PID.
func Tree(root int) ([]Process, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, path := range stats {
		fields, pid, err := stat(path)
		if err != nil {
			continue // it has ended
		}
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			return nil, fmt.Errorf("read %s: parent: %w", path, err)
		}
		children[parent] = append(children[parent], pid)
	}
	found := map[int]bool{root: true}
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		for _, c := range children[queue[0]] {
			found[c] = true
			queue = append(queue, c)
		}
	}
	var tree []Process
	for _, pid := range slices.Sorted(maps.Keys(found)) {
		raw, err := os.ReadFile(file(pid, "cmdline"))
		if err != nil {
			continue
		}
		tree = append(tree, Process{PID: pid, Args: strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")})
	}
	if len(tree) == 0 {
		return nil, fmt.Errorf("read processes: %d is not there", root)
	}
	return tree, nil
}

// RSS returns the bytes of a process that are in memory.
func RSS(pid int) (int64, error) { return kilobytes(file(pid, "status"), "VmRSS:") }

// PSS is RSS with each shared page divided among those who share it.
func PSS(pid int) (int64, error) { return kilobytes(file(pid, "smaps_rollup"), "Pss:") }

// tick is the unit of times in /proc: USER_HZ, which is 100 on every Linux.
const tick = time.Second / 100

// CPU returns the processor time that a process has had.
func CPU(pid int) (time.Duration, error) {
	fields, _, err := stat(file(pid, "stat"))
	if err != nil {
		return 0, err
	}
	const utime, stime = 11, 12 // counted from the state
	var sum time.Duration
	for _, i := range []int{utime, stime} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read times of process %d: %w", pid, err)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

func file(pid int, name string) string { return filepath.Join("/proc", strconv.Itoa(pid), name) }

// stat returns the fields of a stat file from the state on: the name before it
// may hold anything.
func stat(path string) (fields []string, pid int, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, err
	}
	open, end := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')')
	if open < 1 || end < open {
		return nil, 0, fmt.Errorf("read %s: no name in %q", path, raw)
	}
	if pid, err = strconv.Atoi(string(bytes.TrimSpace(raw[:open]))); err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", path, err)
	}
	if fields = strings.Fields(string(raw[end+1:])); len(fields) < 13 {
		return nil, 0, fmt.Errorf("read %s: only %d fields after the name", path, len(fields))
	}
	return fields, pid, nil
}

func kilobytes(path, key string) (int64, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read %s of %s: %w", key, path, err)
			}
			return n << 10, nil
		}
	}
	return 0, fmt.Errorf("read %s: no %s", path, key)
}
