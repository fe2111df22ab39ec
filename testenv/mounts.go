package testenv

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// overlaid are the folders that a host sees as the machine has them, and changes only for itself and until its power is
// cut. /usr/sbin is one of them for the crm_attribute wrapper and the fence agent; /etc for its hosts; /tmp, because a
// program under test may lie there.
var overlaid = []string{"/etc", "/root", "/tmp", "/usr/sbin", "/var/cache", "/var/lib", "/var/tmp"}

// bound are the folders that outlive a power cut, by their name in the host's folder.
var bound = []struct{ name, target string }{
	{"corosync.conf.d", "/etc/corosync"},
	{"corosync", "/var/lib/corosync"},
	{"pacemaker", "/var/lib/pacemaker"},
	{"pgsql", "/var/lib/pgsql"},
	{"log", "/var/log"},
}

// realCRMAttribute is where a host finds the distribution's crm_attribute.
const realCRMAttribute = "/run/rexlab/crm_attribute"

// crmAttribute stands in for crm_attribute: Pacemaker 2.1.5 takes the -INFINITY of "-v -INFINITY" for options and fails,
// so that the pgsql agent never starts. --update=-INFINITY means the same in every version.
const crmAttribute = `#!/bin/sh
for word; do
	shift
	if [ "$value" = next ]; then
		set -- "$@" "--update=$word"
		value=
	elif [ "$word" = -v ]; then
		value=next
	else
		set -- "$@" "$word"
	fi
done
exec ` + realCRMAttribute + ` "$@"
`

// fenceAgent is what Pacemaker runs as stonith:fence_rexlab.
const fenceAgent = `#!/bin/sh
` + roleVariable + `=fence exec /run/rexlab/lab
`

// mountAll makes the host's view of the file system. It runs as PID 1 in a mount namespace that is still a copy of the
// machine's.
func (h hostSpec) mountAll() error {
	// The lab's folder may lie under any of the places that are hidden next, so it is held by descriptors.
	lab, err := openPath(h.Lab)
	if err != nil {
		return err
	}
	own, err := openPath(hostDir(h.Lab, h.Index))
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	for _, m := range []struct{ kind, target, options string }{
		{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"tmpfs", "/run", "mode=755"}, {"tmpfs", "/dev/shm", "mode=1777"},
	} {
		if err := unix.Mount(m.kind, m.target, m.kind, unix.MS_NOSUID|unix.MS_NODEV, m.options); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
		}
	}
	if err := h.mountTools(lab); err != nil {
		return err
	}
	for _, dir := range overlaid {
		if err := overlay(dir); err != nil {
			return err
		}
	}
	for _, b := range bound {
		if err := bind(own+"/"+b.name, b.target); err != nil {
			return err
		}
	}
	if _, err := os.Stat(own + "/" + walName); err == nil {
		if err := bind(own+"/"+walName, walMount); err != nil {
			return err
		}
	}
	return bind(own+"/hosts", "/etc/hosts")
}

// walName is the WAL's own file system in a host's folder, if the lab has one; walMount is where the host has it.
const (
	walName  = "wal"
	walMount = "/var/lib/pgsql/wal"
)

// mountWAL gives a host's folder a file system for WAL, if the lab has one. It is mounted for the lab process and its
// hosts only, so that it outlives a host and ends with the lab.
func (c Config) mountWAL(host string) error {
	if c.WALBytes == 0 {
		return nil
	}
	target := filepath.Join(host, walName)
	if err := makeDir(target, dba, dba, 0o700); err != nil {
		return err
	}
	id, err := userID(dba)
	if err != nil {
		return err
	}
	options := fmt.Sprintf("size=%d,mode=700,uid=%d,gid=%d", c.WALBytes, id, id)
	if err := unix.Mount("tmpfs", target, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount a file system for WAL on %s: %w", target, err)
	}
	return nil
}

// mountTools puts the lab's own files under /run/rexlab.
func (h hostSpec) mountTools(lab string) error {
	// Open to everybody: whoever may run crm_attribute outside may do so here.
	if err := makeDir("/run/rexlab", "root", "root", 0o711); err != nil {
		return err
	}
	for source, target := range map[string]string{
		lab + "/" + programName:   "/run/rexlab/lab",
		lab + "/" + socketName:    fenceSocket,
		"/usr/sbin/crm_attribute": realCRMAttribute,
	} {
		if err := os.WriteFile(target, nil, 0o600); err != nil {
			return err
		}
		if err := bind(source, target); err != nil {
			return err
		}
	}
	upper := upperDir("/usr/sbin")
	if err := os.MkdirAll(upper, 0o700); err != nil {
		return err
	}
	for name, text := range map[string]string{"crm_attribute": crmAttribute, "fence_rexlab": fenceAgent} {
		if err := writeFile(filepath.Join(upper, name), text, "root", "root", 0o755); err != nil {
			return err
		}
	}
	return nil
}

// openPath gives a path to a folder that holds whatever is mounted over its name. The descriptor stays open with PID 1.
func openPath(dir string) (string, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", dir, err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), nil
}

func upperDir(dir string) string { return "/run/rexlab/overlay" + dir + "/upper" }

// overlay lets the host change dir without changing the machine's.
func overlay(dir string) error {
	info, err := os.Stat(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	upper, work := upperDir(dir), filepath.Join(filepath.Dir(upperDir(dir)), "work")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	// What is mounted shows the upper folder's mode.
	if err := os.Chmod(upper, info.Mode().Perm()|info.Mode()&os.ModeSticky); err != nil {
		return err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work)
	if err := unix.Mount("overlay", dir, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount an overlay on %s: %w (the kernel must have overlayfs)", dir, err)
	}
	return nil
}

func bind(source, target string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if _, err := os.Stat(target); info.IsDir() && os.IsNotExist(err) {
		if err := makeDir(target, "root", "root", 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", source, target, err)
	}
	return nil
}
