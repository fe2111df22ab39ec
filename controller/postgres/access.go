package postgres

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Access is what one of PostgreSQL's programs needs to connect by a connection string. Everybody can read the arguments
// of a program: Give passes the secrets in other ways.
type Access struct {
	// Conninfo is for the command line.
	Conninfo string
	// password goes into the program's environment. Only the same user and root may read that, as with a file of mode 0600
	// (proc(5), /proc/pid/environ), and a process that is killed leaves nothing behind.
	password string
	// service is the text of a service file, for secrets that libpq cannot read from the environment.
	service string
}

// noticed overrides what a connection string says. With it, a tool notices within half a minute that a host has lost
// its power.
var noticed = keywords{
	"keepalives": "1", "keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3", "tcp_user_timeout": "25000",
}

// ofPrograms are the keywords that pg_rewind and pg_basebackup set themselves.
var ofPrograms = []string{"dbname", "application_name", "fallback_application_name", "replication"}

const privateService = "pgrex"

// AccessFor checks a connection string, and returns what pg_rewind and pg_basebackup need for it. Of several servers
// they use the primary.
func AccessFor(conninfo string) (Access, error) {
	c, err := readConninfo(conninfo)
	if err != nil {
		return Access{}, err
	}
	a := Access{}
	if len(c.endpoints) == 1 || c.keywords["password"] != "" { // else each server may have its own in the passfile
		if a.password, err = c.password(c.endpoints[0], physicalDatabase); err != nil {
			return Access{}, err
		}
	}
	shown := noticed.with(c.given)
	if len(c.endpoints) > 1 {
		shown["target_session_attrs"] = "primary"
	}
	hidden := c.given.only(secrets...)
	for _, keyword := range append(ofPrograms, secrets...) {
		delete(shown, keyword)
	}
	// A service's password would win over the environment's.
	if delete(hidden, "password"); len(hidden) == 0 && c.service == nil {
		a.Conninfo = shown.String()
		return a, nil
	}
	if a.password != "" {
		hidden["password"] = a.password
	}
	a.password, shown["service"] = "", privateService
	file, err := serviceFile(hidden.with(c.service))
	if err != nil {
		return Access{}, err
	}
	a.Conninfo, a.service = shown.String(), file
	return a, nil
}

// serviceFile returns the text of a service file. Its format has no way to quote a value.
func serviceFile(k keywords) (string, error) {
	const longest = 1000 // what libpq takes
	lines := []string{"[" + privateService + "]"}
	for _, keyword := range slices.Sorted(maps.Keys(k)) {
		line := keyword + "=" + k[keyword]
		if strings.Trim(k[keyword], blanks) != k[keyword] || strings.ContainsAny(k[keyword], "\n\r") || len(line) > longest {
			return "", refuse(keyword, "cannot be handed to a program: it is too long, or begins or ends with a blank, or has more than one line")
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n") + "\n", nil
}

// Give adds the secrets to a program before it is started: to its environment, or as a file in memory that nobody else
// has. Nothing is left behind. The caller closes the file once the program has been started.
func (a Access) Give(cmd *exec.Cmd) (closeFile func() error, err error) {
	closeFile = func() error { return nil }
	if a.password != "" {
		cmd.Env = append(cmd.Env, environment["password"]+"="+a.password)
	}
	if a.service == "" {
		return closeFile, nil
	}
	fd, err := unix.MemfdCreate("pgrex-service", unix.MFD_CLOEXEC)
	if err != nil {
		return closeFile, fmt.Errorf("a file in memory for the service: %w", err)
	}
	file := os.NewFile(uintptr(fd), "pgrex-service")
	if _, err := file.WriteString(a.service); err != nil {
		return closeFile, errors.Join(err, file.Close())
	}
	const firstOfExtra = 3
	cmd.Env = append(cmd.Env, fmt.Sprintf("PGSERVICEFILE=/proc/self/fd/%d", firstOfExtra+len(cmd.ExtraFiles)))
	cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	return file.Close, nil
}

// Files returns the files and folders that a connection string names with whole paths.
func Files(conninfo string) (paths []string) {
	k, err := parseConninfo(conninfo)
	if err != nil { // the caller that connects with it reports the error
		return nil
	}
	for _, name := range []string{"passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir"} {
		if filepath.IsAbs(k[name]) {
			paths = append(paths, k[name])
		}
	}
	return paths
}
