package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the build.
var version = "0.1.0-dev"

// Exit statuses, as in sysexits.h where it has one.
const (
	exitError    = 1
	exitToDo     = 2
	exitDegraded = 3
	exitUsage    = 64
)

// exitStatus ends the program with a status and no message: what there is to say has been printed.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// failure is an error of a command that was called rightly. Every other error is one of usage.
type failure struct{ err error }

func (f failure) Error() string { return f.err.Error() }
func (f failure) Unwrap() error { return f.err }

func main() { os.Exit(Main()) }

// Main runs the command line and gives the exit status.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := rootCommand().ExecuteContext(ctx)
	var status exitStatus
	var failed failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &failed):
		fmt.Fprintln(os.Stderr, "pgrex:", oneLine(err))
		return exitError
	}
	fmt.Fprintln(os.Stderr, "pgrex:", oneLine(err)+"; see 'pgrex help'")
	return exitUsage
}
