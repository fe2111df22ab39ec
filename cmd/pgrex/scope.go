package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// A server that an operation starts to undo a step lives on after the operation. systemd would count it as part of the
// user's session, or of the unit that called pgrex, and end it with that. So the part that may start a server gets a
// scope of its own.

// systemdRuns exists if systemd is the init (sd_booted(3)).
const systemdRuns = "/run/systemd/system"

// scopePatience is how long systemd may take to make a scope.
const scopePatience = 5 * time.Second

// moveToScope moves a process of this host into a scope of its own, if systemd runs. The command is for the name:
// "pgrex archive prune".
func moveToScope(ctx context.Context, command string, pid int) error {
	if _, err := os.Stat(systemdRuns); err != nil {
		return nil // there is no systemd
	}
	ctx, cancel := context.WithTimeout(ctx, scopePatience)
	defer cancel()
	moved := make(chan error, 1)
	go func() { moved <- startScope(ctx, scopeName(command, pid), scopeProperties(command, pid)) }()
	select {
	case err := <-moved:
		return err
	case <-ctx.Done(): // the library may still wait
		return fmt.Errorf("systemd does not answer: %w", ctx.Err())
	}
}

func startScope(ctx context.Context, name string, properties []dbus.Property) error {
	systemd, err := dbus.NewWithContext(ctx)
	if err != nil {
		return fmt.Errorf("ask systemd: %w", err)
	}
	defer systemd.Close()
	done := make(chan string, 1)
	if _, err := systemd.StartTransientUnitContext(ctx, name, "fail", properties, done); err != nil {
		return fmt.Errorf("have systemd make %s: %w", name, err)
	}
	select {
	case how := <-done:
		if how != "done" {
			return fmt.Errorf("systemd did not make %s: %s", name, how)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("systemd does not make %s: %w", name, ctx.Err())
	}
}

func scopeName(command string, pid int) string {
	return fmt.Sprintf("%s-%d.scope", strings.ReplaceAll(command, " ", "-"), pid)
}

// scopeProperties are those of systemd.scope(5), by their names on D-Bus.
//
// When the host goes down, Pacemaker stops the database first, and then systemd stops the scope: a unit that is Before
// another one is stopped after it (systemd.unit(5)). A server is left in the scope only if Pacemaker does not manage
// it, as in maintenance. Every process of a scope gets the same signal. SIGTERM is a clean shutdown: the postmaster
// waits for its clients, and SIGTERM ends them. SIGINT, the postmaster's fast shutdown, is not safe: since PostgreSQL
// 18 it makes the checkpointer write the shutdown checkpoint at once, while others still write WAL.
func scopeProperties(command string, pid int) []dbus.Property {
	property := func(name string, value any) dbus.Property {
		return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
	}
	return []dbus.Property{
		dbus.PropDescription(command + ", and the PostgreSQL that it starts to undo a step"),
		dbus.PropSlice("system.slice"),
		dbus.PropPids(uint32(pid)),
		dbus.PropBefore("pacemaker.service"),
		dbus.PropAfter("basic.target", "network.target", "remote-fs.target"), // as PostgreSQL's own unit
		property("CollectMode", "inactive-or-failed"),
		property("KillMode", "control-group"),
		property("KillSignal", int32(15)),
		property("SendSIGHUP", false),
		property("TimeoutStopUSec", uint64(time.Minute/time.Microsecond)),
		property("TasksMax", uint64(math.MaxUint64)), // as in pacemaker.service, where the server was
	}
}
