package datadir

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mountPoints returns the folders on which a file system is mounted (proc_pid_mountinfo(5)). To compare the numbers of
// file systems is not enough: a folder of the same file system may be mounted, too.
func mountPoints() (folders []string, err error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	escapes := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			folders = append(folders, escapes.Replace(fields[4]))
		}
	}
	return folders, nil
}

// isMountPoint reports whether a file system is mounted on a folder. In doubt it returns true.
func isMountPoint(folder string) bool {
	points, err := mountPoints()
	return err != nil || slices.Contains(points, folder)
}

// mountsBelow explains why the folders in the data folder cannot be moved: a file system is mounted on one of them. It
// is "" if they can.
func (p Place) mountsBelow() (why string) {
	points, err := mountPoints()
	if err != nil {
		return err.Error()
	}
	for _, point := range points {
		if strings.HasPrefix(point, p.Data+"/") {
			return point + " is a mount point, which cannot be moved: mount the file system elsewhere, " +
				"and make a symbolic link there that leads to a folder of it"
		}
	}
	return ""
}

// isMemory reports whether a folder is on a file system in memory, which is empty after a restart of the host.
func isMemory(folder string) bool {
	var s unix.Statfs_t
	return unix.Statfs(folder, &s) == nil && s.Type == unix.TMPFS_MAGIC
}

// writable reports whether this user may write in a folder.
func writable(folder string) bool { return unix.Access(folder, unix.W_OK) == nil }
