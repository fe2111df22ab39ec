package testenv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupName is where the lab process mounts the kernel's cgroups: in its folder, in its own mount namespace, so that
// it does not matter how the machine has them.
const cgroupName = "cgroup"

// cgroupPrefix begins the names of the labs' cgroups; the process and the time of its start follow.
const cgroupPrefix = "rexlab-"

// mountCgroups gives the lab process the cgroups: those of the machine, if it has mounted them, since a mount of our
// own could change the options that all of them share.
func mountCgroups(dir string) error {
	target := filepath.Join(dir, cgroupName)
	if err := os.Mkdir(target, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	source, kind, flags := "cgroup2", "cgroup2", uintptr(noExtras)
	if found := cgroupMounts(); len(found) > 0 {
		source, kind, flags = found[0], "", unix.MS_BIND
	}
	if err := unix.Mount(source, target, kind, flags, ""); err != nil {
		return fmt.Errorf("mount the cgroups (the kernel must have cgroup v2): %w", err)
	}
	return nil
}

// labCgroup is the folder of a lab's cgroups, below the mount point.
func labCgroup(mounted string, server Process) string {
	return filepath.Join(mounted, fmt.Sprintf("%s%d-%d", cgroupPrefix, server.PID, server.Start))
}

// removeCgroups removes a folder of cgroups in which no process is left, from the bottom up.
func removeCgroups(dir string) error {
	var folders []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			folders = append(folders, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, path := range slices.Backward(folders) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a cgroup: %w", err)
		}
	}
	return nil
}

// sweepCgroups removes the empty cgroups of labs whose process was killed. mounted is where the cgroups are.
func sweepCgroups(mounted string) error {
	folders, err := filepath.Glob(filepath.Join(mounted, cgroupPrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range folders {
		pid, start, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), cgroupPrefix), "-")
		p, err := parseProcess(pid, start)
		if err != nil || p.Alive() {
			continue
		}
		if err := removeCgroups(path); err != nil && !errors.Is(err, unix.EBUSY) { // its processes are about to end
			return err
		}
	}
	return nil
}

func parseProcess(pid, start string) (Process, error) {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return Process{}, err
	}
	begun, err := strconv.ParseUint(start, 10, 64)
	return Process{PID: n, Start: begun}, err
}

// SweepCgroups removes the empty cgroups that killed labs have left on this machine.
func SweepCgroups() {
	if os.Geteuid() != 0 {
		return
	}
	for _, mounted := range cgroupMounts() {
		_ = sweepCgroups(mounted)
	}
}

// cgroupMounts are the places where this process sees the cgroups.
func cgroupMounts() []string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			found = append(found, fields[4])
		}
	}
	return found
}
