package testenv

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hostSpec is what a host's first process must know to become its systemd.
type hostSpec struct {
	Lab     string // the lab's folder
	Root    string // the root of the host's system
	Name    string
	Index   int
	WAL     string // where pg_wal's own file system is to be; "" without one
	Address string // with the network's size
}

// Descriptors of a host's first process.
const (
	specFD   = 3 // the hostSpec as JSON comes here, once the host has its cgroup and its link
	answerFD = 4 // an error is written here; it is closed without one when systemd starts
)

// hostMain makes a system of this process, which is the first in its namespaces, and then becomes its systemd. It
// returns only when that fails.
func hostMain() error {
	unix.CloseOnExec(specFD)
	unix.CloseOnExec(answerFD)
	answer := os.NewFile(answerFD, "answer")
	err := becomeSystem(os.NewFile(specFD, "spec"))
	if _, wrong := io.WriteString(answer, err.Error()); wrong != nil {
		return errors.Join(err, wrong)
	}
	return err
}

func becomeSystem(from io.Reader) error {
	// The cgroup namespace and the capabilities are this thread's, and systemd is what this thread becomes.
	runtime.LockOSThread()
	var h hostSpec
	if err := json.NewDecoder(from).Decode(&h); err != nil {
		return fmt.Errorf("read what to become: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("make a cgroup namespace: %w", err)
	}
	if err := unix.Sethostname([]byte(h.Name)); err != nil {
		return fmt.Errorf("set the host name %q: %w", h.Name, err)
	}
	if err := h.network(); err != nil {
		return err
	}
	if err := h.mountAll(); err != nil {
		return err
	}
	if err := inheritNoCapability(); err != nil {
		return err
	}
	for _, c := range deniedCapabilities {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c.number, 0, 0, 0); err != nil {
			return fmt.Errorf("drop %s: %w", c.name, err)
		}
	}
	err := unix.Exec("/lib/systemd/systemd", []string{"systemd", "--system", "--show-status=0", "--log-target=journal-or-kmsg"},
		[]string{"container=rexlab", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
	return fmt.Errorf("start systemd: %w", err)
}

// deniedCapabilities are those by which root in a host could change the machine itself: its clock, its kernel, its
// hardware. A host has no user namespace, so its root is the machine's.
var deniedCapabilities = []struct {
	name   string
	number uintptr
}{
	{"sys_time", unix.CAP_SYS_TIME},
	{"sys_module", unix.CAP_SYS_MODULE},
	{"sys_rawio", unix.CAP_SYS_RAWIO},
	{"sys_boot", unix.CAP_SYS_BOOT},
}

// inheritNoCapability sees that a program gets no more than the bounding set leaves: what is inheritable it would get
// beside.
func inheritNoCapability() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read the capabilities: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("inherit no capability: %w", err)
	}
	return nil
}

// network brings up the link that the lab process has put into this namespace.
func (h hostSpec) network() error {
	// No IPv6: its address checks would only delay the boot.
	for _, which := range []string{"all", "default"} {
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/disable_ipv6", []byte("1"), 0o600)
	}
	for _, l := range []struct{ name, address string }{{"lo", "127.0.0.1/8"}, {"eth0", h.Address}} {
		link, err := netlink.LinkByName(l.name)
		if err != nil {
			return fmt.Errorf("link %s: %w", l.name, err)
		}
		ip, err := netlink.ParseAddr(l.address)
		if err != nil {
			return err
		}
		// lo gets its address by itself once it is up, on some kernels before.
		if err := netlink.AddrAdd(link, ip); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("give %s the address %s: %w", l.name, l.address, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("bring up %s: %w", l.name, err)
		}
	}
	return nil
}

// Names in a host's folder.
const (
	upperName   = "upper"       // what the host has written: its own files over the system's
	workName    = "work"        // overlayfs's own
	rootName    = "root"        // where the two are mounted, in the host's namespace only
	walName     = "wal"         // pg_wal's own file system, if the lab has one
	consoleName = "console.log" // what was said before systemd ran
)

// fenceSocket and labProgram are how a host's fence agent reaches the lab: power does not run over the network that
// can be cut.
const (
	fenceSocket = "/run/rexlab/control.sock"
	labProgram  = "/run/rexlab/lab"
)

// mount is one mount of a host, on a place below its root.
type mount struct {
	source, target, kind string
	flags                uintptr
	options              string
}

const (
	noExtras = unix.MS_NOSUID | unix.MS_NODEV
	readOnly = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY
)

// mountAll makes the host's file system and moves into it. Everything that systemd or a program in the host could
// reach the machine by is closed here, before any of them runs: systemd-tmpfiles, for one, empties /tmp.
func (h hostSpec) mountAll() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	own := hostDir(h.Lab, h.Index)
	if err := os.Chdir(own); err != nil { // so that no path has to be quoted in the options
		return err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", h.Root, upperName, workName)
	if err := unix.Mount("overlay", rootName, "overlay", unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount an overlay over %s in %s: %w (the kernel must have overlayfs, and the lab's folder must lie on a disk, "+
			"not on an overlay itself)", h.Root, own, err)
	}
	if err := os.Chdir(rootName); err != nil {
		return err
	}
	for _, step := range []func() error{h.mountKernel, h.mountDevices, h.mountLab} {
		if err := step(); err != nil {
			return err
		}
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("move into the host's root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the machine's root: %w", err)
	}
	return os.Chdir("/")
}

// mountEach mounts in order.
func mountEach(mounts []mount) error {
	for _, m := range mounts {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount %s on /%s: %w", m.source, m.target, err)
		}
	}
	return nil
}

// mountKernel mounts the kernel's own file systems. What is not the host's alone in them is read-only or masked: a
// panic of pacemakerd writes to sysrq-trigger, which would boot the machine again.
func (h hostSpec) mountKernel() error {
	mounts := []mount{
		{"proc", "proc", "proc", noExtras, ""},
		{"sysfs", "sys", "sysfs", noExtras | unix.MS_RDONLY, ""},
		{"cgroup2", "sys/fs/cgroup", "cgroup2", noExtras, ""},
	}
	if _, err := os.Stat("/proc/sysrq-trigger"); err == nil { // not every kernel has it
		mounts = append(mounts, mount{"/dev/null", "proc/sysrq-trigger", "", unix.MS_BIND, ""})
	}
	// What is bound before proc/sys becomes read-only stays as it is.
	mounts = append(mounts,
		mount{"proc/sys", "proc/sys", "", unix.MS_BIND, ""},
		mount{"proc/sys/net", "proc/sys/net", "", unix.MS_BIND, ""},
		mount{"", "proc/sys", "", readOnly, ""})
	for _, name := range []string{"acpi", "bus", "fs", "irq", "scsi"} {
		if _, err := os.Stat("/proc/" + name); err == nil {
			place := "proc/" + name
			mounts = append(mounts, mount{place, place, "", unix.MS_BIND, ""}, mount{"", place, "", readOnly, ""})
		}
	}
	return mountEach(mounts)
}

// mountDevices gives the host the devices that harm nobody, and its own /run and /tmp.
func (h hostSpec) mountDevices() error {
	err := mountEach([]mount{
		{"tmpfs", "run", "tmpfs", noExtras, "mode=755"},
		{"tmpfs", "tmp", "tmpfs", noExtras, "mode=1777"},
		{"tmpfs", "dev", "tmpfs", unix.MS_NOSUID, "mode=755"},
	})
	if err != nil {
		return err
	}
	for _, dir := range []string{"dev/shm", "dev/pts", "run/rexlab"} {
		if err := os.Mkdir(dir, 0o711); err != nil { //nolint:gosec // whoever runs crm_attribute outside may do so here
			return err
		}
	}
	mounts := []mount{
		{"tmpfs", "dev/shm", "tmpfs", noExtras, "mode=1777"},
		{"devpts", "dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5"},
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := os.WriteFile("dev/"+name, nil, 0o600); err != nil {
			return err
		}
		mounts = append(mounts, mount{"/dev/" + name, "dev/" + name, "", unix.MS_BIND, ""})
	}
	for target, link := range map[string]string{
		"pts/ptmx": "dev/ptmx", "/proc/self/fd": "dev/fd", "/proc/self/fd/0": "dev/stdin", "/proc/self/fd/1": "dev/stdout",
		"/proc/self/fd/2": "dev/stderr",
	} {
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	return mountEach(mounts)
}

// bootID is a random number in the form of the kernel's.
func bootID() string {
	id := machineID()
	return fmt.Sprintf("%s-%s-%s-%s-%s\n", id[:8], id[8:12], id[12:16], id[16:20], id[20:])
}

// mountLab puts the lab's own things into the host: what the fence agent needs, the number of this boot, and the disk
// for pg_wal.
func (h hostSpec) mountLab() error {
	mounts := []mount{
		{filepath.Join(h.Lab, programName), labProgram[1:], "", unix.MS_BIND, ""},
		{filepath.Join(h.Lab, socketName), fenceSocket[1:], "", unix.MS_BIND, ""},
	}
	for _, m := range mounts {
		if err := os.WriteFile(m.target, nil, 0o600); err != nil {
			return err
		}
	}
	// The kernel's is the machine's, and the same at every boot of a host: journalctl could not tell these apart.
	if err := os.WriteFile("run/rexlab/boot_id", []byte(bootID()), 0o444); err != nil { //nolint:gosec // as the kernel's is
		return err
	}
	mounts = append(mounts, mount{"run/rexlab/boot_id", "proc/sys/kernel/random/boot_id", "", unix.MS_BIND, ""})
	if h.WAL != "" {
		mounts = append(mounts, mount{filepath.Join(hostDir(h.Lab, h.Index), walName), h.WAL[1:], "", unix.MS_BIND, ""})
	}
	return mountEach(mounts)
}
