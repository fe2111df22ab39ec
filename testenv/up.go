package testenv

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgrex/pgrex/model"
)

// bootLimit bounds a boot whose caller set no deadline.
const bootLimit = 5 * time.Minute

// Up boots a lab and waits until its first host is promoted, writes go through the virtual IP and every other host
// streams. The lab ends with the calling process unless Detach is called. A boot that fails leaves the logs; one that
// was cancelled leaves nothing.
func Up(ctx context.Context, config Config) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the lab needs root: it makes namespaces, mounts and network links; run it as root")
	}
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	if err := config.enoughMemory(); err != nil {
		return nil, err
	}
	root, err := config.system().hold(ctx, config.Output)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // the lab process holds it by then
	if _, ok := ctx.Deadline(); !ok {
		limit := bootLimit + time.Duration(config.DataBytes>>20)*time.Second // 1 MB/s at the worst
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	b := &boot{config: config, begin: time.Now(), password: rand.Text()}
	lab, err := b.run(ctx)
	if err == nil {
		return lab, nil
	}
	if lab == nil {
		return nil, err
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil, errors.Join(fmt.Errorf("the boot was interrupted: %w", context.Cause(ctx)), lab.Down(end))
	}
	return nil, errors.Join(fmt.Errorf("%w; the logs are kept in %s", err, config.Dir), lab.stop(end))
}

// enoughMemory refuses file systems for WAL that this machine cannot hold: they are in its memory.
func (c Config) enoughMemory() error {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		var kilobytes int64
		if _, err := fmt.Sscanf(line, "MemAvailable: %d kB", &kilobytes); err != nil {
			continue
		}
		if wanted := c.WALBytes * int64(len(c.Hosts)); wanted > kilobytes<<10 {
			return fmt.Errorf("the WAL file systems of %d hosts need %d MiB of memory; this machine has %d MiB available",
				len(c.Hosts), wanted>>20, kilobytes>>10)
		}
	}
	return nil
}

// boot is one run of Up.
type boot struct {
	config   Config
	begin    time.Time
	password string
	lock     *os.File
	lab      *Lab
}

func (b *boot) sayf(format string, arguments ...any) {
	fmt.Fprintln(b.config.Output, model.Line("%6.1f s  ", time.Since(b.begin).Seconds())+model.Line(format, arguments...))
}

// run goes through the stages. The lab that it gives with an error has to be taken down.
func (b *boot) run(ctx context.Context) (*Lab, error) {
	defer func() {
		if b.lock != nil {
			_ = b.lock.Close() // the lab process has it too, and so keeps the lock
		}
	}()
	if err := b.folder(ctx); err != nil {
		return nil, err
	}
	if err := b.startServer(ctx); err != nil {
		if b.lab == nil {
			err = errors.Join(err, removeFolder(b.config.Dir))
		}
		return b.lab, err
	}
	c := b.config
	b.sayf("%d hosts of %s: %s; layout %s; monitor every %s (standbys %s)", len(c.Hosts), c.System, c.system().Summary(), c.Layout,
		c.Monitor, c.Monitor+time.Second)
	for _, stage := range []struct {
		do   func(context.Context) error
		done string
	}{
		{b.power, "the hosts have power"},
		{func(ctx context.Context) error { return b.lab.makeDatabase(ctx, b.password) }, "the database is made"},
		{b.lab.copyDatabase, "the standbys have their copies"},
		{b.lab.moveWAL, "the WAL is where it should be"},
		{b.lab.startCluster, "corosync and Pacemaker run"},
		{b.lab.awaitMembers, "the cluster is complete"},
		{b.lab.awaitPromoted, b.config.Hosts[0] + " is promoted"},
		{b.lab.awaitWritable, "writes go through the virtual IP " + VIP},
		{b.lab.awaitStandbys, "every standby streams"},
	} {
		if err := stage.do(ctx); err != nil {
			return b.lab, err
		}
		b.sayf("%s", stage.done)
	}
	return b.lab, nil
}

// folder makes the lab's folder and takes it, removes what an earlier lab left in it, and writes what the hosts need.
func (b *boot) folder(ctx context.Context) error {
	dir := b.config.Dir
	if _, err := remains(dir); err != nil { // before anything is written into somebody's folder
		return err
	}
	var state labState
	err := os.Mkdir(dir, 0o700)
	if state.MadeDir = err == nil; err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the lab's folder: %w", err)
	}
	if err := ownFolder(dir); err != nil {
		return err
	}
	b.lock, err = lockDir(dir)
	if errors.Is(err, errLabUp) {
		return fmt.Errorf("%w; end it with 'rexlab down --dir %s', or name another folder", err, dir)
	}
	if err != nil {
		return err
	}
	found, err := remains(dir)
	if err != nil {
		return err
	}
	if found != "" {
		b.sayf("found in %s: %s; removing them", dir, found)
		if err := killRemains(ctx, dir); err != nil {
			return err
		}
		if state.MadeDir, err = removeFiles(dir); err != nil {
			return err
		}
	}
	if err := writeJSON(filepath.Join(dir, stateName), state); err != nil {
		return err
	}
	if err := b.files(); err != nil {
		return errors.Join(err, removeFolder(dir))
	}
	return nil
}

// ownFolder refuses a folder where others could exchange the programs that the lab runs as root.
func ownFolder(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || stat.Uid != 0 || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s must be a folder that belongs to root and that only root can write to", dir)
	}
	return nil
}

func (b *boot) files() error {
	c := b.config
	if err := writeJSON(filepath.Join(c.Dir, configName), c); err != nil {
		return err
	}
	if err := copyProgram(filepath.Join(c.Dir, programName)); err != nil {
		return fmt.Errorf("copy this program into the lab's folder: %w", err)
	}
	if err := os.Mkdir(filepath.Join(c.Dir, "hosts"), 0o700); err != nil {
		return err
	}
	for i := range c.Hosts {
		if err := c.makeHost(i+1, b.password); err != nil {
			return fmt.Errorf("the files of %s: %w", c.Hosts[i], err)
		}
	}
	return nil
}

func copyProgram(path string) error {
	source, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	target, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	// For everybody who gets into the folder: Pacemaker asks the fence agent for its metadata as hacluster.
	return errors.Join(err, target.Chmod(0o755), target.Close())
}

// startServer starts the lab process and waits until it takes orders.
func (b *boot) startServer(ctx context.Context) error {
	dir := b.config.Dir
	log, err := openLog(filepath.Join(dir, logName))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = reader.Close() }()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(dir, programName))
	cmd.Args = []string{"rexlab-serve", dir} // what ps shows
	cmd.Dir = dir
	cmd.Env = append([]string{roleVariable + "=serve", "HOME=/root"}, baseEnv...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = reader, log, log
	cmd.ExtraFiles = []*os.File{b.lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,                // Ctrl-C is for the caller, who takes the lab down in order
		Cloneflags: syscall.CLONE_NEWNS, // what it mounts for its hosts ends with it
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, writer.Close())
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	server, err := processOf(cmd.Process.Pid)
	if err != nil {
		return errors.Join(err, cmd.Process.Kill(), writer.Close())
	}
	b.lab = &Lab{dir: dir, config: b.config, lifeline: writer, server: server}
	if err := b.lab.connect(); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err = poll(limited, 5*time.Millisecond, "the lab process", func(ctx context.Context) (bool, error) {
		select {
		case err := <-ended:
			text, _ := os.ReadFile(filepath.Join(dir, logName))
			return false, final{fmt.Errorf("it has ended (%w): %s", err, text)}
		default:
		}
		_, err := b.lab.control.hosts(ctx)
		return err == nil, err
	})
	return err
}

// power gives all hosts power at once.
func (b *boot) power(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, h := range b.config.Hosts {
		group.Go(func() error { return b.lab.order(ctx, order{Verb: "on", Host: h}) })
	}
	return group.Wait()
}

// startCluster has every host start corosync and Pacemaker, now and at every boot.
func (l *Lab) startCluster(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, h := range l.config.Hosts {
		group.Go(func() error {
			_, err := l.Exec(ctx, h, "systemctl", "--quiet", "enable", "--now", "corosync.service", "pacemaker.service")
			return err
		})
	}
	return group.Wait()
}
