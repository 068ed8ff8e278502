package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/xinghuo-edge/xinghuo/pkg/devicetoken"
	"github.com/xinghuo-edge/xinghuo/services/node/internal/cli"
)

// asXinghuo makes this test's binary the xinghuo command.
const asXinghuo = "XH_TEST_AS_XINGHUO"

func TestMain(m *testing.M) {
	if os.Getenv(asXinghuo) != "" {
		os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("os/signal.loop"), goleak.IgnoreAnyFunction("os/signal.NotifyContext.func1"))
}

func TestMainCodes(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "token.key")
	k, err := devicetoken.LoadOrCreate(key)
	if err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 80))
	tests := []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "Usage: xinghuo"},
		{[]string{"help"}, 0, "broadcast   publishes"},
		{[]string{"version"}, 0, "xinghuo devel go1."},
		{[]string{"nope"}, 2, `no command "nope"`},
		{[]string{"token", "meter-0001", "--key", key}, 0, k.Token("meter-0001")},
		{[]string{"token", "--key=" + key, "meter-0001"}, 0, k.Token("meter-0001")},
		{[]string{"token", "a b"}, 2, `ID: must be 1 to 64 of [A-Za-z0-9_-], is "a b"`},
		{[]string{"token", "a", "--key", "/nonexistent"}, 1, "no such file"},
		{[]string{"token", "-h"}, 0, "Usage: xinghuo token"},
		{[]string{"up", "-h"}, 0, "-interface"},
		{[]string{"up", "--meters", "-1", "--rate", "NaN", "--for", "-1s", "--ws", "70000", "--ports", "x", "--dir", long}, 2, "6 fault(s)"},
		{[]string{"up", "--ws", "9000", "--mqtt", "9000"}, 2, "--mqtt: must differ from --ws, both are 9000"},
		{[]string{"up", "now"}, 2, "none are taken"},
		{[]string{"doctor", "-h"}, 0, "Exit code 1"},
		{[]string{"doctor", "now"}, 2, "none are taken"},
		{[]string{"ingest", "-window", "0"}, 2, ""},
		{[]string{"fleet", "-h"}, 0, "Usage: fleet"},
	}
	for _, tt := range tests {
		var out, errs bytes.Buffer
		code := cli.Main(tt.args, &out, &errs)
		if all := out.String() + errs.String(); code != tt.code || !strings.Contains(all, tt.want) {
			t.Errorf("xinghuo %q = %d, want %d with %q:\n%s", tt.args, code, tt.code, tt.want, all)
		}
	}
}
