package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/cib"
)

// An operation that root starts is two processes. The child has the rights of the data folder's owner, and the owner's
// groups, but never haclient. So PostgreSQL's programs, and a server that is started again, have the rights that the
// server always has. The child does everything except running Pacemaker's tools: it asks the parent for these, over a
// pair of sockets. The parent stays root's, to run each tool with the group haclient. It opens nothing that the owner
// could put in its way.
//
// The child begins once the parent has sent it one byte: when the child is in a scope of its own (scope.go).

// toolsVariable names the descriptor over which the child asks for Pacemaker's tools. It leaves its environment at
// once.
const toolsVariable = "PGREX_TOOLS_FD"

// begin is what the parent sends to let the child begin.
var begin = []byte{1}

// shellPatience is how long a shell may take to send a signal.
const shellPatience = 5 * time.Second

// firstExtra is the number that the first of exec.Cmd's ExtraFiles has in the child.
const firstExtra = 3

// split runs this program again, as the owner, and runs Pacemaker's tools for it. It ends after the child, with the
// same exit status.
func (o dataOwner) split(cmd *cobra.Command, starts starting, stateDir string) error {
	ctx := cmd.Context()
	if starts != startsInUnit { // where root may not give a folder away
		if err := o.makeStateFolder(stateDir); err != nil {
			return err
		}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, operationInterrupts...)
	defer signal.Stop(signals)
	if ctx.Err() != nil {
		return ctx.Err() // one that came before
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return fmt.Errorf("make the sockets between pgrex's parts: %w", err)
	}
	child := o.child(theirs)
	if err := errors.Join(child.Start(), theirs.Close()); err != nil {
		return errors.Join(fmt.Errorf("run this program as the user %s: %w", o.name, err), ours.Close())
	}
	if err := letBegin(ctx, ours, cmd.CommandPath(), child.Process.Pid, starts); err != nil {
		_ = ours.Close() // this ends the child
		_ = child.Wait()
		return err
	}
	end := func() {}
	defer func() { end() }()
	stay := sync.OnceFunc(func() { end = holdOut(func() {}) }) // the child reports it
	served := make(chan error, 1)
	go func() {
		served <- cib.Serve(ours, o.toolsCredential(), cib.Environment(os.Environ(), o.name, o.home), stay)
	}()
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	for passed := false; ; {
		select {
		case s := <-signals:
			// One from a terminal the child has got, too; a second one changes nothing there.
			if !passed {
				_ = passSignal(child.Process.Signal, child.Process.Pid, child.SysProcAttr.Credential, s) // it may have ended meanwhile
			}
			passed = true
		case err := <-ended:
			_ = ours.Close() // whoever else has the other end
			misunderstood := <-served
			if err := childStatus(err); err != nil {
				return errors.Join(misunderstood, err)
			}
			return nil // it has done what it was to do, whatever it has sent last
		}
	}
}

// makeStateFolder makes the folder for the child's journal if only root can: below a folder of root's. The daemon's
// unit also makes it, but may never have run.
func (o dataOwner) makeStateFolder(folder string) error {
	parent, err := os.Stat(filepath.Dir(folder))
	if err != nil || parent.Sys().(*syscall.Stat_t).Uid != 0 || parent.Mode()&0o022 != 0 {
		return nil // the child makes it, or says why it cannot
	}
	root, err := os.OpenRoot(filepath.Dir(folder)) // whoever moves it meanwhile, in this one it is made
	if err == nil {
		defer func() { _ = root.Close() }() // nothing is written by it
		err = root.Mkdir(filepath.Base(folder), 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = root.Lchown(filepath.Base(folder), int(o.uid), int(o.gid))
	}
	if err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	return nil
}

// letBegin lets the child begin, in a scope of its own. The child must not start a server in the cgroup of a session.
func letBegin(ctx context.Context, child net.Conn, command string, pid int, starts starting) error {
	var err error
	if starts != startsInUnit { // which is as good as a scope
		err = moveToScope(ctx, command, pid)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && starts == startsServer:
		return fmt.Errorf("nothing was done, because to undo a step PostgreSQL would be started in this session's"+
			" cgroup, and end with it: %w; see systemctl status", err)
	}
	_, _ = child.Write(begin) // the child may have ended
	return nil
}

// child is the other part. It is this very program, also while its file is being replaced.
func (o dataOwner) child(tools *os.File) *exec.Cmd {
	return &exec.Cmd{
		Path: "/proc/self/exe", Args: os.Args,
		Env:   append(o.environment(os.Environ()), toolsVariable+"="+strconv.Itoa(firstExtra)),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: []*os.File{tools},
		// In the same process group: it asks its questions at our terminal.
		SysProcAttr: &syscall.SysProcAttr{Credential: o.credential()},
	}
}

// passSignal sends a process a signal. Under pgrex-rejoin.service, root may not signal another user's processes: it has
// no CAP_KILL. Then a shell of that user's does it.
func passSignal(send func(os.Signal) error, pid int, as *syscall.Credential, s os.Signal) error {
	err := send(s)
	number, ok := s.(syscall.Signal)
	if !ok || !errors.Is(err, syscall.EPERM) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), shellPatience)
	defer cancel()
	shell := exec.CommandContext(ctx, "/bin/sh", "-c", fmt.Sprintf("kill -%d %d", number, pid))
	shell.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	return shell.Run()
}

// childStatus is how the child ended. What there is to say of it, it has said itself, unless it was killed.
func childStatus(err error) error {
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return nil
	case ok && exit.Exited():
		return statusError(exit.ExitCode())
	case ok && slices.Contains(operationInterrupts, os.Signal(exit.Sys().(syscall.WaitStatus).Signal())):
		return context.Canceled // before it has begun with anything: from then on it does not end so
	case ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGPIPE:
		return statusError(exitError) // the same: whoever reads its output has read enough (--dry-run | head)
	}
	return fmt.Errorf("the part of pgrex that does the work did not end by itself (%w): nothing was undone;"+
		" type: sudo pgrex operation show", err)
}

func socketPair() (ours net.Conn, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs = os.NewFile(uintptr(pair[1]), "tools")
	ours, err = connection(pair[0])
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// connection makes a connection of a socket's descriptor, which is another one afterwards.
func connection(fd int) (net.Conn, error) {
	file := os.NewFile(uintptr(fd), "tools")
	conn, err := net.FileConn(file)
	return conn, errors.Join(err, file.Close())
}
