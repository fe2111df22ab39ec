package testenv

import (
	"fmt"
	"os"
	"syscall"
)

// roleVariable tells this binary what to be when the lab runs it again.
const roleVariable = "REXLAB_ROLE"

// Main must be called first thing in main or TestMain: the lab process, each host's first process and the fence agent
// are the same binary, run again. In those Main does not return; in any other process it does nothing.
func Main() {
	role := os.Getenv(roleVariable)
	if role == "" {
		return
	}
	_ = os.Unsetenv(roleVariable)
	syscall.Umask(0o022) // the caller's may be tighter, and what the hosts' users read is made here
	var err error
	switch role {
	case "serve":
		err = serve()
	case "host":
		err = hostMain()
	case "fence":
		os.Exit(fenceMain(os.Stdin, os.Stdout, os.Stderr))
	default:
		err = fmt.Errorf("%s=%q: no such role", roleVariable, role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "rexlab:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
