package testenv

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// needs are the files that a lab uses, by the Debian package that brings them.
var needs = []struct{ pkg, file string }{
	{"pacemaker", "/usr/sbin/pacemakerd"},
	{"corosync", "/usr/sbin/corosync"},
	{"pacemaker-cli-utils", "/usr/sbin/crm_attribute"},
	{"resource-agents", "/usr/lib/ocf/resource.d/heartbeat/pgsql"},
	{"crmsh", "/usr/sbin/crm"},
	{"iproute2", "/sbin/ip"},
	{"postgresql-15", pgBin + "/postgres"},
	{"util-linux", "/usr/bin/nsenter"},
}

// Check tells in one line what this machine lacks for a lab: root's rights, or packages.
func Check() error {
	if os.Geteuid() != 0 {
		return errors.New("the lab needs root: it makes namespaces, mounts and network links; run it as root")
	}
	return missing("/")
}

// missing names the packages that a file system lacks.
func missing(root string) error {
	var names []string
	for _, n := range needs {
		if _, err := os.Stat(filepath.Join(root, n.file)); err != nil {
			names = append(names, n.pkg)
		}
	}
	if len(names) == 0 {
		return nil
	}
	list := strings.Join(names, " ")
	return fmt.Errorf("missing packages: %s; install them: apt-get install --no-install-recommends %s", list, list)
}
