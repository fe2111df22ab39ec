package testenv

import (
	"bufio"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// System is a release of a distribution that the lab's hosts can be: the root under every host's own files.
type System struct {
	Name       string // what --system says
	Suite      string // Debian's name of the release
	PostgreSQL string // its major version
}

// systems are those that the lab knows. The first is the default.
var systems = []System{
	{Name: "debian13", Suite: "trixie", PostgreSQL: "17"},
	{Name: "debian12", Suite: "bookworm", PostgreSQL: "15"},
	// It never stands still, so hack/test --long makes its root again each time.
	{Name: "sid", Suite: "sid", PostgreSQL: "18"},
}

// Systems are the systems that the lab's hosts can be, the default first.
func Systems() []System { return slices.Clone(systems) }

// SystemNamed finds a system by its name; "" is the default.
func SystemNamed(name string) (System, error) {
	if name == "" {
		return systems[0], nil
	}
	var names []string
	for _, s := range systems {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return System{}, fmt.Errorf("no system %q; the lab knows %s", name, strings.Join(names, ", "))
}

// rootsDir keeps the systems' roots between labs.
const rootsDir = "/var/cache/rexlab"

// Root is the folder with the system's files. Nothing writes there once it is made.
func (s System) Root() string { return filepath.Join(rootsDir, s.Name) }

// packages are what a database host has, by the names that Debian gives them.
func (s System) packages() []string {
	return []string{
		"systemd", "systemd-sysv", "dbus", "procps", "iproute2", "iputils-ping", "pacemaker", "corosync", "pacemaker-cli-utils",
		"resource-agents", "crmsh", "postgresql-" + s.PostgreSQL, "ssl-cert",
	}
}

// rootScript makes a root.
//
//go:embed root.sh
var rootScript string

// recipe changes whenever a root made by an older program is not what this one would make.
func (s System) recipe() string {
	sum := sha256.Sum256([]byte(rootScript + s.Suite + strings.Join(s.packages(), " ")))
	return hex.EncodeToString(sum[:])
}

// sealName is a file beside a root with the recipe that it was made by, and a checksum over its files.
func (s System) sealName() string { return s.Root() + ".seal" }

// Check reports what is wrong with the system's root: that there is none, that it was made by another list of
// packages, or that its files are not those that it was made of.
func (s System) Check() error {
	seal, err := os.ReadFile(s.sealName())
	if err != nil {
		return errors.New("it is not made yet")
	}
	recipe, sum, _ := strings.Cut(strings.TrimSpace(string(seal)), " ")
	if recipe != s.recipe() {
		return errors.New("another version of rexlab made it")
	}
	now, err := sumOfRoot(s.Root())
	if err != nil || now != sum {
		return errors.New("its files have changed since it was made")
	}
	return nil
}

// Made is when the system's root was made; zero if there is none.
func (s System) Made() time.Time {
	seal, err := os.Stat(s.sealName())
	if err != nil {
		return time.Time{}
	}
	return seal.ModTime()
}

// sumOfRoot is a checksum over the names, modes, owners, sizes and times of a folder's files: what they hold is not
// read.
func sumOfRoot(root string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s has no owner", path)
		}
		size, changed := info.Size(), info.ModTime().UnixNano()
		if info.IsDir() {
			size, changed = 0, 0
		}
		fmt.Fprintln(sum, strings.TrimPrefix(path, root), info.Mode(), stat.Uid, stat.Gid, size, changed)
		return nil
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

// versions says which releases of Pacemaker and PostgreSQL the root holds, as its packages are named.
func (s System) versions() map[string]string {
	file, err := os.Open(filepath.Join(s.Root(), "var/lib/dpkg/status"))
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }()
	wanted := append(s.packages(), "pacemaker")
	found, name := map[string]string{}, ""
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if field, value, _ := strings.Cut(lines.Text(), ": "); field == "Package" {
			name = value
		} else if field == "Version" && slices.Contains(wanted, name) {
			found[name] = value
		}
	}
	return found
}

// Summary names the releases that matter, in one line.
func (s System) Summary() string {
	versions := s.versions()
	upstream := func(name string) string {
		_, version, found := strings.Cut(versions[name], ":")
		if !found {
			version = versions[name]
		}
		version, _, _ = strings.Cut(version, "-")
		return version
	}
	return fmt.Sprintf("Pacemaker %s, corosync %s, resource-agents %s, PostgreSQL %s", upstream("pacemaker"), upstream("corosync"),
		upstream("resource-agents"), upstream("postgresql-"+s.PostgreSQL))
}

// account is a user or a group of a system, which has other numbers than the machine's of the same name.
type account struct{ uid, gid int }

// user finds a user of the system.
func (s System) user(name string) (account, string, error) {
	fields, err := lineOf(filepath.Join(s.Root(), "etc/passwd"), name, 7)
	if err != nil {
		return account{}, "", err
	}
	uid, err := strconv.Atoi(fields[2])
	if err != nil {
		return account{}, "", fmt.Errorf("user %s: %w", name, err)
	}
	gid, err := strconv.Atoi(fields[3])
	return account{uid, gid}, fields[5], err
}

// group finds a group of the system.
func (s System) group(name string) (int, error) {
	fields, err := lineOf(filepath.Join(s.Root(), "etc/group"), name, 4)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(fields[2])
}

// lineOf finds a name's line in a file such as /etc/passwd.
func lineOf(path, name string, fields int) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if f[0] == name && len(f) == fields {
			return f, nil
		}
	}
	return nil, fmt.Errorf("%s has no %s", path, name)
}
