package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/pgrex/pgrex/cmd/printer"
	"github.com/pgrex/pgrex/testenv"
)

// Exit statuses; 64 is sysexits.h's.
const (
	exitError = 1
	exitUsage = 64
)

// failure is an error of a command that was called rightly. Every other error is one of usage.
type failure struct{ err error }

func (f failure) Error() string { return f.err.Error() }
func (f failure) Unwrap() error { return f.err }

func main() {
	testenv.Main() // the lab's own processes are this program, run again
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := rootCommand().ExecuteContext(ctx)
	var failed failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &failed):
		printer.Errors().Error("rexlab", err, "")
		return exitError
	}
	printer.Errors().Error("rexlab", err, "; see 'rexlab help'")
	return exitUsage
}
