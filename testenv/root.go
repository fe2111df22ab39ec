package testenv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgrex/pgrex/model"
)

// rootSpace is the room that making a root takes at the most, in bytes.
const rootSpace = 1500 << 20

// take holds the system's root for as long as the file is open: together with others who only use it, or alone.
func (s System) take(how int) (*os.File, error) {
	if err := os.MkdirAll(rootsDir, 0o755); err != nil { //nolint:gosec // everybody may run the tools of a root
		return nil, err
	}
	if err := ownFolder(rootsDir); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(s.Root()+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), how); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", s.Root(), errRootUsed)
		}
		return nil, fmt.Errorf("lock %s: %w", s.Root(), err)
	}
	return lock, nil
}

var errRootUsed = errors.New("it is in use")

// Used reports whether a lab that is up has hosts of this system.
func (s System) Used() bool {
	lock, err := s.take(unix.LOCK_EX | unix.LOCK_NB)
	if err != nil {
		return errors.Is(err, errRootUsed)
	}
	_ = lock.Close()
	return false
}

// Make makes the system's root unless it is there and whole. Progress goes to out.
func (s System) Make(ctx context.Context, out io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can make a system: run this as root")
	}
	lock, err := s.hold(ctx, out)
	if err != nil {
		return err
	}
	return lock.Close()
}

// makeLimit bounds the making of a root, and the waiting for another program that makes it.
const makeLimit = 15 * time.Minute

// hold returns a lock on a whole root: the root stays whole until the file is closed. It makes the root if needed.
func (s System) hold(ctx context.Context, out io.Writer) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, makeLimit)
	defer cancel()
	said := ""
	say := func(what string) {
		if what != said {
			said = what
			fmt.Fprintln(out, what)
		}
	}
	var lock *os.File
	tries := 0
	err := poll(ctx, 200*time.Millisecond, "the root of "+s.Name, func(ctx context.Context) (bool, error) {
		var err error
		lock, err = s.take(unix.LOCK_SH | unix.LOCK_NB)
		if errors.Is(err, errRootUsed) { // alone by another
			say("waiting for another program that makes the root of " + s.Name)
			return false, err
		}
		if err != nil {
			return false, final{err}
		}
		why := s.Check()
		if why == nil {
			return true, nil
		}
		_ = lock.Close()
		alone, err := s.take(unix.LOCK_EX | unix.LOCK_NB)
		if errors.Is(err, errRootUsed) {
			// By another one that has just looked, or by a lab, which does not end so soon.
			if tries++; tries > 25 {
				return false, final{fmt.Errorf("end the labs of %s first: the root must be made again, because %w", s.Name, why)}
			}
			return false, err
		}
		if err != nil {
			return false, final{err}
		}
		defer func() { _ = alone.Close() }()
		if s.Check() == nil {
			return false, nil // made by another one meanwhile: take it at the next look
		}
		if err := s.make(ctx, out, why); err != nil {
			return false, final{fmt.Errorf("it could not be made: %w", err)}
		}
		return false, nil
	})
	return lock, err
}

// Remove removes the system's root, if no lab uses it.
func (s System) Remove() error {
	lock, err := s.take(unix.LOCK_EX | unix.LOCK_NB)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	return s.clear()
}

// clear removes the root and what killed programs have left of it. The caller has its lock.
func (s System) clear() error {
	left, err := filepath.Glob(s.Root() + ".new*")
	if err != nil {
		return err
	}
	for _, path := range append([]string{s.sealName(), s.Root()}, left...) {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// make makes the root. The caller has it alone, and so nobody uses what is there.
func (s System) make(ctx context.Context, out io.Writer, why error) error {
	begin := time.Now()
	fmt.Fprintln(out, model.Line("making the root of %s in %s: %v", s.Name, s.Root(), why))
	if err := s.clear(); err != nil {
		return err
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(rootsDir, &disk); err != nil {
		return err
	}
	if free := disk.Bavail * uint64(disk.Frsize); free < rootSpace {
		return fmt.Errorf("%s has %d MiB left, and a root takes %d MiB: make room", rootsDir, free>>20, rootSpace>>20)
	}
	mirror, err := packageSource(ctx)
	if err != nil {
		return err
	}
	fresh := s.Root() + ".new"
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	err = runRootScript(ctx, out, s.Root()+".log", []string{
		"ROOT=" + fresh, "SUITE=" + s.Suite, "MIRROR=" + mirror, "KEYRING=" + keyring,
		"PACKAGES=" + strings.Join(s.packages(), " "),
	})
	if err != nil {
		return errors.Join(err, s.clear())
	}
	if err := os.Rename(fresh, s.Root()); err != nil {
		return err
	}
	sum, err := sumOfRoot(s.Root())
	if err != nil {
		return err
	}
	// Written last: a root without it is made again.
	if err := os.WriteFile(s.sealName(), []byte(s.recipe()+" "+sum+"\n"), 0o600); err != nil {
		return err
	}
	fmt.Fprintf(out, "the root of %s is made in %s\n", s.Name, time.Since(begin).Round(time.Second))
	return nil
}

// keyring holds the keys that Debian signs its packages with.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// packageSource is where this machine gets Debian's own packages from.
func packageSource(ctx context.Context) (string, error) {
	const ask = `. /etc/os-release && apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' \
		"Codename: $VERSION_CODENAME" 'Component: main' 'Origin: Debian' 'Label: Debian'`
	if _, err := exec.LookPath("debootstrap"); err != nil {
		return "", errors.New("debootstrap is missing; install it: apt-get install --no-install-recommends debootstrap")
	}
	if _, err := os.Stat(keyring); err != nil {
		return "", fmt.Errorf("the archive keyring of Debian is missing: %w; run apt-get install debian-archive-keyring", err)
	}
	out, err := runGroup(ctx, nil, baseEnv, []string{"sh", "-c", ask})
	if err == nil && out == "" { // apt has no lists yet
		if _, err = runGroup(ctx, nil, baseEnv, []string{"apt-get", "-qq", "update"}); err == nil {
			out, err = runGroup(ctx, nil, baseEnv, []string{"sh", "-c", ask})
		}
	}
	if err != nil {
		return "", fmt.Errorf("ask apt where it gets packages: %w", err)
	}
	mirror, _, _ := strings.Cut(out, "\n")
	if mirror == "" {
		return "", errors.New("apt has no source of Debian's own packages: add one; the lab needs a Debian machine")
	}
	return mirror, nil
}

// proxies are the caller's settings by which packages are reached.
func proxies() []string {
	return slices.DeleteFunc(os.Environ(), func(setting string) bool {
		name, _, _ := strings.Cut(setting, "=")
		return !slices.Contains([]string{"http_proxy", "https_proxy", "no_proxy"}, strings.ToLower(name))
	})
}

// runRootScript runs the script in namespaces of its own: what it mounts, and every process that it leaves, ends with
// it.
func runRootScript(ctx context.Context, out io.Writer, logPath string, env []string) error {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	// The signal at a parent's death comes when the thread that forked ends, which this one does not while it is locked.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private",
		"bash", "-c", rootScript)
	cmd.Env = slices.Concat(env, baseEnv, proxies())
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = log
	said, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	begin := time.Now()
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		fmt.Fprintln(log, lines.Text())
		if progress, ok := strings.CutPrefix(lines.Text(), "> "); ok {
			fmt.Fprintf(out, "%6.1f s  %s\n", time.Since(begin).Seconds(), progress)
		}
	}
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("it was interrupted: %w", context.Cause(ctx))
		}
		return fmt.Errorf("%w; its log, %s, ends with %q", err, logPath, lastLine(logPath))
	}
	return nil
}

// lastLine is where debootstrap and apt say why they failed.
func lastLine(path string) string {
	text, _ := os.ReadFile(path)
	whole := strings.TrimSpace(string(text))
	return whole[strings.LastIndexByte(whole, '\n')+1:]
}
