package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pgrex/pgrex/cmd/printer"
)

// interrupts are the signals by which the user, or the service manager, ends a command.
var interrupts = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}

// operationInterrupts are those of an operation. SIGQUIT is among them: Go's dump of all goroutines would leave the
// operation half done.
var operationInterrupts = append([]os.Signal{syscall.SIGQUIT}, interrupts...)

// stops are the signals by which a terminal suspends a process.
var stops = []os.Signal{syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU}

// interruptible is a context that ends with the first interrupt.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), interrupts...)
}

// quits lets SIGQUIT interrupt a command, too, until the returned function is called.
func quits(cmd *cobra.Command) (end func()) {
	ctx, end := signal.NotifyContext(cmd.Context(), syscall.SIGQUIT)
	cmd.SetContext(ctx)
	return end
}

// holdOut keeps this process going while steps are done, until the returned function is called. A suspended switchover
// is an outage, and the reader of this process's output may go away. holdOut calls told at the first attempt to suspend
// the process.
//
// The process catches the signals instead of ignoring them: the programs that it starts would ignore them, too
// (execve(2)).
func holdOut(told func()) (end func()) {
	printer.KeepWriting()
	pipe, suspend := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE) // nobody reads the channel: a write that fails says enough
	signal.Notify(suspend, stops...)
	go func() {
		var once sync.Once
		for range suspend {
			// A program that is being started is still in this group, and has no handler before execve: it may be stopped
			// now, and whoever starts it waits for it.
			_ = syscall.Kill(0, syscall.SIGCONT)
			once.Do(told)
		}
	}()
	return func() {
		signal.Stop(pipe)
		signal.Stop(suspend)
		close(suspend)
	}
}
