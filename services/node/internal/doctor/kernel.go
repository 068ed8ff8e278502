package doctor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What the node's parts need of the kernel: pidfd_open (adoption) came with
// 5.3, bpf_link for XDP with 5.9, accounting BPF memory to the cgroup instead
// of RLIMIT_MEMLOCK with 5.11.
const (
	leastMajor, leastMinor = 5, 3
	xdpMajor, xdpMinor     = 5, 9
	noLockMajor, noLockMin = 5, 11
)

// release returns the running kernel's version, 0.0 when it is not known.
func release() (text string, major, minor int) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown", 0, 0
	}
	text = unix.ByteSliceToString(u.Release[:])
	_, _ = fmt.Sscanf(text, "%d.%d", &major, &minor)
	return text, major, minor
}

func atLeast(major, minor, wantMajor, wantMinor int) bool {
	return major > wantMajor || major == wantMajor && minor >= wantMinor
}

func kernel() Finding {
	const name = "kernel"
	text, major, minor := release()
	switch {
	case !atLeast(major, minor, leastMajor, leastMinor):
		return fail(name, "install Linux 5.15 or newer", "%s; the node needs %d.%d", text, leastMajor, leastMinor)
	case !atLeast(major, minor, xdpMajor, xdpMinor):
		return warn(name, "install Linux 5.15 or newer", "%s; the firewall needs %d.%d", text, xdpMajor, xdpMinor)
	}
	return ok(name, "Linux %s", text)
}

func btf() Finding {
	const name, path = "BTF", "/sys/kernel/btf/vmlinux"
	if _, err := os.Stat(path); err != nil {
		return warn(name, "use a kernel built with CONFIG_DEBUG_INFO_BTF=y", "%s is not there; tracing programs do not load", path)
	}
	return ok(name, "%s", path)
}

func bpffs() Finding {
	const name, path = "bpffs", "/sys/fs/bpf"
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil || st.Type != unix.BPF_FS_MAGIC {
		return warn(name, "mount -t bpf bpf "+path, "not mounted on %s; the firewall cannot outlive its process", path)
	}
	return ok(name, "mounted on %s", path)
}

func cgroup() Finding {
	const name, path = "cgroup", "/sys/fs/cgroup"
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		return warn(name, "boot with systemd.unified_cgroup_hierarchy=1", "no cgroup v2 on %s; memory limits are not seen", path)
	}
	return ok(name, "version 2")
}

// ioUring asks for a ring of no entries: a kernel that has io_uring and lets us
// use it says EINVAL (io_uring_setup(2)).
func ioUring() Finding {
	const name = "io_uring"
	_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 0, 0, 0)
	switch {
	case errors.Is(errno, unix.EINVAL), errors.Is(errno, unix.EFAULT):
		return ok(name, "allowed")
	case errors.Is(errno, unix.ENOSYS):
		return warn(name, "use a kernel built with CONFIG_IO_URING=y", "not in this kernel; ordinary writes are used")
	}
	return warn(name, "sysctl kernel.io_uring_disabled=0, or allow it in the container's seccomp profile",
		"refused (%v); ordinary writes are used", errno)
}

const (
	capNetAdmin = 12
	capSysAdmin = 21
	capBPF      = 39
)

func capabilities() Finding {
	const name = "capabilities"
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return warn(name, "", "not known: %v", err)
	}
	return judgeCapabilities(name, string(raw))
}

func judgeCapabilities(name, status string) Finding {
	var have uint64
	for line := range strings.Lines(status) {
		if hex, found := strings.CutPrefix(line, "CapEff:"); found {
			have, _ = strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	var lacks []string
	if have&(1<<capBPF|1<<capSysAdmin) == 0 {
		lacks = append(lacks, "CAP_BPF")
	}
	if have&(1<<capNetAdmin) == 0 {
		lacks = append(lacks, "CAP_NET_ADMIN")
	}
	if len(lacks) > 0 {
		return warn(name, "give them to the firewall alone: setcap, AmbientCapabilities= or cap_add",
			"without %s the firewall serves and guards nothing", strings.Join(lacks, ", "))
	}
	return ok(name, "CAP_BPF, CAP_NET_ADMIN")
}
