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

// interrupts are the signals by which the user, or the service manager, wants an end.
var interrupts = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}

// operationInterrupts are those of an operation, which Go's dump of all goroutines would leave half done.
var operationInterrupts = append([]os.Signal{syscall.SIGQUIT}, interrupts...)

// stops are the signals by which a terminal suspends a process.
var stops = []os.Signal{syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU}

// interruptible is a context that ends with the first interrupt.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), interrupts...)
}

// quits has SIGQUIT interrupt a command, too, until the returned function is called.
func quits(cmd *cobra.Command) (end func()) {
	ctx, end := signal.NotifyContext(cmd.Context(), syscall.SIGQUIT)
	cmd.SetContext(ctx)
	return end
}

// holdOut keeps this process going while steps are done, until the returned function is called. A switchover that is
// suspended is an outage, and who reads what this process prints may go away. told is called at the first attempt to
// suspend it.
//
// The signals are caught and not ignored: what this process starts would ignore them, too (execve(2)).
func holdOut(told func()) (end func()) {
	printer.KeepWriting()
	pipe, suspend := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE) // nobody reads the channel: a write that fails says enough
	signal.Notify(suspend, stops...)
	go func() {
		var once sync.Once
		for range suspend {
			once.Do(told)
		}
	}()
	return func() {
		signal.Stop(pipe)
		signal.Stop(suspend)
		close(suspend)
	}
}
