package testenv

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// bootVariable makes this test binary boot a lab in the folder that it names, and say what happens on standard output.
const bootVariable = "TESTENV_TEST_BOOT"

func TestMain(m *testing.M) {
	Main()
	if dir := os.Getenv(bootVariable); dir != "" {
		_, err := Up(context.Background(), Config{Dir: dir, Hosts: []string{"a", "b"}, Output: os.Stdout})
		fmt.Println("ended", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// needLab skips a test that boots hosts where these are not wanted, and fails it where they cannot be had.
func needLab(t *testing.T) {
	t.Helper()
	if os.Getenv("PGREX_NO_LAB") != "" {
		t.Skip("PGREX_NO_LAB is set: this test boots hosts, which needs root")
	}
}
