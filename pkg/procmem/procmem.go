// Package procmem reads how much memory a process holds.
package procmem

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Usage is a process's memory in bytes.
type Usage struct {
	RSS uint64 // resident
	PSS uint64 // resident, with each shared page divided among its users
}

// Of reads /proc/<pid>/smaps_rollup (proc_pid_smaps(5)). It needs the right to
// ptrace the process: the same uid, or CAP_SYS_PTRACE.
func Of(pid int) (Usage, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return Usage{}, fmt.Errorf("read memory of pid %d: %w", pid, err)
	}
	u, err := parse(raw)
	if err != nil {
		return Usage{}, fmt.Errorf("read memory of pid %d: %w", pid, err)
	}
	return u, nil
}

func parse(raw []byte) (Usage, error) {
	var u Usage
	seen := 0
	for s := bufio.NewScanner(bytes.NewReader(raw)); s.Scan(); {
		name, rest, _ := strings.Cut(s.Text(), ":")
		var field *uint64
		switch name {
		case "Rss":
			field = &u.RSS
		case "Pss":
			field = &u.PSS
		default:
			continue
		}
		kb, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 54)
		if err != nil {
			return Usage{}, fmt.Errorf("%s: %w", name, err)
		}
		*field = kb << 10
		seen++
	}
	if seen != 2 {
		return Usage{}, fmt.Errorf("smaps_rollup: want Rss and Pss, found %d of them", seen)
	}
	return u, nil
}
