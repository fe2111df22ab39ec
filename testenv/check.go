package testenv

import (
	"errors"
	"fmt"
	"os"
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
	var missing []string
	for _, n := range needs {
		if _, err := os.Stat(n.file); err != nil {
			missing = append(missing, n.pkg)
		}
	}
	if len(missing) > 0 {
		names := strings.Join(missing, " ")
		return fmt.Errorf("missing packages: %s; install them: apt-get install --no-install-recommends %s", names, names)
	}
	return nil
}
