package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xinghuo-edge/xinghuo/services/node/internal/ports"
)

const (
	leastFiles = 1024
	// goodFiles holds 10,000 devices and what else is open.
	goodFiles = 16384
	// goodLock is what the firewall's maps take, on kernels that count it.
	goodLock = 64 << 20

	leastMemory = 128 << 20
	goodMemory  = 256 << 20
	goodDisk    = 1 << 30
)

// files checks the hard limit: Go raises the soft one to it.
func files() Finding {
	const name, mend = "open files", "ulimit -Hn 65536, or LimitNOFILE=65536"
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return warn(name, "", "not known: %v", err)
	}
	switch {
	case l.Max < leastFiles:
		return fail(name, mend, "%d; the node needs %d", l.Max, leastFiles)
	case l.Max < goodFiles:
		return warn(name, mend, "%d; 10,000 devices need %d", l.Max, goodFiles)
	}
	return ok(name, "%s", limit(l.Max))
}

func limit(n uint64) string {
	if n == math.MaxUint64 {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

func memlock() Finding {
	const name = "locked memory"
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l); err != nil {
		return warn(name, "", "not known: %v", err)
	}
	if _, major, minor := release(); l.Max < goodLock && !atLeast(major, minor, noLockMajor, noLockMin) {
		return warn(name, "ulimit -Hl unlimited, or LimitMEMLOCK=infinity",
			"%s bytes; this kernel counts the firewall's maps to it", limit(l.Max))
	}
	return ok(name, "%s", limit(l.Max))
}

// doors checks the ports of the node. One that a node holds already is as it
// should be.
func doors() []Finding {
	all := []struct {
		port int
		flag string
		what string
	}{
		{8600, "agent", "the agent's door"},
		{8700, "ws", "the devices' door"},
		{1883, "mqtt", "MQTT"},
		{4222, "nats", "NATS"},
		{2379, "etcd", "etcd"},
	}
	findings := make([]Finding, 0, len(all))
	for _, d := range all {
		name := "port " + strconv.Itoa(d.port)
		err := ports.Check("127.0.0.1", d.port)
		var taken *ports.TakenError
		switch {
		case err == nil:
			findings = append(findings, ok(name, "free for %s", d.what))
		case errors.As(err, &taken) && strings.HasPrefix(taken.Holder.Name, "xinghuo"):
			findings = append(findings, ok(name, "held by a node that runs: %v", taken.Holder))
		default:
			findings = append(findings, fail(name,
				fmt.Sprintf("stop its holder, or give %s another port: `xinghuo up --%s 0` takes any", d.what, d.flag), "%v", err))
		}
	}
	return findings
}

func folder(name, path string) Finding {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if parent := filepath.Dir(path); unix.Access(parent, unix.W_OK) == nil {
			return ok(name, "%s is not there; the first service makes it", path)
		}
		return warn(name, "install -d -m 0750 -o xinghuo "+path+"; `xinghuo up` needs none", "%s is not there and cannot be made by this user", path)
	case err != nil:
		return fail(name, "", "%v", err)
	case !info.IsDir():
		return fail(name, "remove it; a folder is to be there", "%s is not a folder", path)
	case info.Mode().Perm()&0o002 != 0:
		return fail(name, "chmod 0750 "+path, "%s may be written to by everyone, mode %04o", path, info.Mode().Perm())
	}
	if err := unix.Access(path, unix.W_OK|unix.X_OK); err != nil {
		owner := "another user"
		if st, found := info.Sys().(*syscall.Stat_t); found {
			owner = "uid " + strconv.FormatUint(uint64(st.Uid), 10)
		}
		return warn(name, "run as its owner; `xinghuo up` needs none", "%s belongs to %s; this user may not write there", path, owner)
	}
	return ok(name, "%s, mode %04o", path, info.Mode().Perm())
}

func tempFolder(path string) Finding {
	const name = "temp folder"
	if err := unix.Access(path, unix.W_OK|unix.X_OK); err != nil {
		return fail(name, "set TMPDIR to a folder that may be written to", "%s: %v", path, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return warn(name, "", "%s: %v", path, err)
	}
	free := st.Bavail * uint64(st.Bsize)
	if free < goodDisk {
		return warn(name, "make room, or use `xinghuo up --dir`", "%s has %d MB; `xinghuo up` may take %d MB", path, free/1e6, uint64(goodDisk)/1e6)
	}
	return ok(name, "%s, %d MB free", path, free/1e6)
}

// clock checks that it is set: readings carry its time. The kernel knows
// whether something keeps it (adjtimex(2)).
func clock() Finding {
	const name = "clock"
	now := time.Now()
	if now.Year() < 2025 {
		return fail(name, "set it, for example by chrony", "%s", now.Format(time.DateTime))
	}
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	if err != nil {
		return warn(name, "", "%s; whether it is kept is not known: %v", now.Format(time.DateTime), err)
	}
	const timeError = 5
	if state == timeError || tx.Status&unix.STA_UNSYNC != 0 {
		return warn(name, "run chrony or systemd-timesyncd", "%s; nothing keeps it right", now.Format(time.DateTime))
	}
	return ok(name, "%s, kept right", now.Format(time.DateTime))
}

// memory checks what is available, the cgroup's limit included.
func memory() Finding {
	const name, mend = "memory", "give the node 256 MB"
	var info unix.Sysinfo_t
	_ = unix.Sysinfo(&info)
	have := uint64(info.Freeram) * uint64(info.Unit)
	if raw, err := os.ReadFile("/proc/meminfo"); err == nil {
		if n, found := available(string(raw)); found {
			have = n
		}
	}
	note := "available"
	if most, found := cgroupLimit(); found && most < have {
		have, note = most, "allowed by the cgroup"
	}
	switch {
	case have < leastMemory:
		return fail(name, mend, "%d MB %s", have>>20, note)
	case have < goodMemory:
		return warn(name, mend, "%d MB %s", have>>20, note)
	}
	return ok(name, "%d MB %s", have>>20, note)
}

func available(meminfo string) (uint64, bool) {
	for line := range strings.Lines(meminfo) {
		if rest, found := strings.CutPrefix(line, "MemAvailable:"); found {
			kb, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 54)
			return kb << 10, err == nil
		}
	}
	return 0, false
}

func cgroupLimit() (uint64, bool) {
	raw, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(raw)) {
		own, found := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !found {
			continue
		}
		text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", own, "memory.max"))
		if err != nil {
			return 0, false
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		return n, err == nil // "max" is no number
	}
	return 0, false
}
