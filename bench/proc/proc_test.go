package proc

import (
	"os"
	"os/exec"
	"slices"
	"testing"
)

func TestTreeAndItsCosts(t *testing.T) {
	child := exec.CommandContext(t.Context(), "cat")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = child.Wait() })

	tree, err := Tree(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{os.Getpid(), child.Process.Pid} {
		if !slices.ContainsFunc(tree, func(p Process) bool { return p.PID == pid && len(p.Args) > 0 }) {
			t.Errorf("Tree(%d) = %v, want %d in it", os.Getpid(), tree, pid)
		}
	}
	rss, rerr := RSS(os.Getpid())
	pss, perr := PSS(os.Getpid())
	if rerr != nil || perr != nil || pss <= 0 || rss < 1<<20 || pss > 2*rss {
		t.Errorf("RSS = %d, %v and PSS = %d, %v; want both over 0", rss, rerr, pss, perr)
	}
	if cpu, err := CPU(os.Getpid()); err != nil || cpu < 0 {
		t.Errorf("CPU = %v, %v", cpu, err)
	}
}

func TestAProcessThatIsNotThere(t *testing.T) {
	const none = 1 << 30
	if _, err := Tree(none); err == nil {
		t.Error("Tree succeeded")
	}
	if _, err := RSS(none); err == nil {
		t.Error("RSS succeeded")
	}
	if _, err := CPU(none); err == nil {
		t.Error("CPU succeeded")
	}
}
