package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
)

// Exit statuses, as in sysexits.h where it has one.
const (
	exitError    = 1
	exitPending  = 2
	exitDegraded = 3
	exitUsage    = 64
)

// statusError ends the program with a status and no message: what there is to say has been printed.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// commandError is an error of a command that was called rightly. Every other error is one of usage.
type commandError struct{ err error }

func (f commandError) Error() string { return f.err.Error() }
func (f commandError) Unwrap() error { return f.err }

func main() { os.Exit(Main()) }

// Main runs the command line and gives the exit status.
func Main() int {
	ctx, stop := interruptible()
	defer stop()
	root := rootCommand()
	ctx, err := takePart(ctx)
	if err != nil {
		return exitStatus(printer.Errors(), root, commandError{err})
	}
	cmd, err := root.ExecuteContextC(ctx)
	return exitStatus(printer.Errors(), cmd, err)
}

// exitStatus returns the exit status for a command's error. It prints the error.
func exitStatus(out *printer.Printer, cmd *cobra.Command, err error) int {
	if err == nil {
		return 0
	}
	if status, ok := errors.AsType[statusError](err); ok {
		return int(status)
	}
	if _, ok := errors.AsType[commandError](err); ok {
		out.Error("pgrex", err, "")
		return exitError
	}
	out.Error("pgrex", err, "; see '"+cmd.CommandPath()+" --help'")
	return exitUsage
}
