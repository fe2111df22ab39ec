// Package pgserver starts real PostgreSQL servers for tests: one alone, or with standbys, in a folder of their own. It
// must not be used outside of tests. It fails the test with what PostgreSQL said. A server ends with its test.
package pgserver

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every command and every wait.
const patience = 60 * time.Second

const dba = "postgres"

// Server is one running PostgreSQL.
type Server struct {
	t testing.TB
	// Dir holds the data folder, the socket and the log.
	Dir  string
	Port uint16
	// Config is the folder of postgresql.conf, pg_hba.conf and pg_ident.conf: the data folder, or another one.
	Config string
}

// binDir is where the server's programs are: PGREX_PG_BINDIR, or Debian's PostgreSQL 15.
func binDir() string {
	if dir := os.Getenv("PGREX_PG_BINDIR"); dir != "" {
		return dir
	}
	return "/usr/lib/postgresql/15/bin"
}

// New makes a database and starts it, with these lines at the end of postgresql.conf.
func New(t testing.TB, settings ...string) *Server {
	t.Helper()
	s := newServer(t)
	s.run("initdb", "-N", "-D", s.data(), "-U", dba, "-A", "trust")
	s.configure(append([]string{
		"fsync = off", "unix_socket_directories = '" + s.Dir + "'", "listen_addresses = '127.0.0.1'", "wal_keep_size = 0",
		"max_wal_size = 64MB", "min_wal_size = 32MB", "hot_standby_feedback = on", "wal_receiver_status_interval = 1s",
		"wal_retrieve_retry_interval = 200ms", "wal_log_hints = on", fmt.Sprintf("port = %d", s.Port),
	}, settings...)...)
	s.Start()
	return s
}

// Standby makes a standby of s and starts it: a copy of the files while s is stopped for a moment, because some builds
// of PostgreSQL come without pg_basebackup.
func (s *Server) Standby(settings ...string) *Server {
	s.t.Helper()
	return s.standby(newServer(s.t), settings...)
}

// StandbyAt is Standby at another address of this machine, with the port of s, as if on another host.
func (s *Server) StandbyAt(address string, settings ...string) *Server {
	s.t.Helper()
	standby := newServer(s.t)
	standby.Port = s.Port
	return s.standby(standby, append([]string{"listen_addresses = '" + address + "'"}, settings...)...)
}

func (s *Server) standby(standby *Server, settings ...string) *Server {
	s.t.Helper()
	s.Stop("fast")
	s.copyTo(standby)
	s.Start()
	standby.configure(append([]string{
		fmt.Sprintf("port = %d", standby.Port), "unix_socket_directories = '" + standby.Dir + "'",
		"primary_conninfo = '" + s.Conninfo() + "'",
	}, settings...)...)
	standby.Start()
	return standby
}

// copyTo copies the data folder, without the slots: they are the server's own.
func (s *Server) copyTo(standby *Server) {
	s.t.Helper()
	out, err := exec.CommandContext(s.t.Context(), "cp", "-a", s.data(), standby.data()).CombinedOutput()
	if err != nil {
		s.t.Fatalf("copy %s: %v\n%s", s.data(), err, out)
	}
	slots, err := filepath.Glob(filepath.Join(standby.data(), "pg_replslot", "*"))
	must(s.t, err)
	for _, slot := range slots {
		must(s.t, os.RemoveAll(slot))
	}
	standby.markStandby()
}

// markStandby makes the next start one as a standby.
func (s *Server) markStandby() {
	s.t.Helper()
	signal := filepath.Join(s.data(), "standby.signal")
	must(s.t, os.WriteFile(signal, nil, 0o600))
	if c := credential(s.t); c != nil {
		must(s.t, os.Chown(signal, int(c.Uid), int(c.Gid)))
	}
}

// Follow starts a stopped server, whatever it was, as a standby of another one. A running standby follows another one by
// Configure with its Conninfo.
func (s *Server) Follow(upstream *Server) {
	s.t.Helper()
	s.markStandby()
	s.configure("primary_conninfo = '" + upstream.Conninfo() + "'")
	s.Start()
}

// Conninfo is how to reach the server over TCP.
func (s *Server) Conninfo() string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s", s.Port, dba)
}

func newServer(t testing.TB) *Server {
	t.Helper()
	if err := usable(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "pgsrv") // a socket's path has to be short
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if c := credential(t); c != nil {
		must(t, os.Chown(dir, int(c.Uid), int(c.Gid)))
	}
	return &Server{t: t, Dir: dir, Port: reservePort(t), Config: filepath.Join(dir, "data")}
}

// reservePort finds a port that is this server's until the test ends, also while the server is stopped. The system gives the
// ports from 32768 on to whoever connects anywhere; of those below, an abstract socket tells other tests which are taken.
func reservePort(t testing.TB) uint16 {
	t.Helper()
	const first, last = 12000, 32000
	listen := func(network, address string) (net.Listener, error) {
		return (&net.ListenConfig{}).Listen(context.Background(), network, address)
	}
	for offset, i := rand.IntN(last-first), 0; i < last-first; i++ {
		port := first + (offset+i)%(last-first)
		reservation, err := listen("unix", fmt.Sprintf("@pgrex-test-port-%d", port))
		if err != nil {
			continue
		}
		if used, err := listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			must(t, used.Close())
			t.Cleanup(func() { _ = reservation.Close() })
			return uint16(port)
		}
		must(t, reservation.Close())
	}
	t.Fatal("no port is free")
	return 0
}

// usable tells why the programs cannot be used: they are not there, or not of the major version that PGREX_PG_MAJOR asks
// for. It runs one of them once.
var usable = sync.OnceValue(func() error {
	out, err := exec.CommandContext(context.Background(), filepath.Join(binDir(), "postgres"), "--version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("no PostgreSQL in %s: hack/test installs postgresql-15, hack/servers others, which PGREX_PG_BINDIR names: %w\n%s",
			binDir(), err, out)
	}
	version := strings.TrimSpace(string(out))
	if major := os.Getenv("PGREX_PG_MAJOR"); major != "" && !strings.HasPrefix(version, "postgres (PostgreSQL) "+major+".") {
		return fmt.Errorf("%s is %s, but PGREX_PG_MAJOR asks for %s", binDir(), version, major)
	}
	return nil
})

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// credential is the user that runs servers where the test is root: PostgreSQL refuses to.
func credential(t testing.TB) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup(dba)
	must(t, err)
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	must(t, err)
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	must(t, err)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (s *Server) data() string { return filepath.Join(s.Dir, "data") }

func (s *Server) conf() string { return filepath.Join(s.Config, "postgresql.conf") }

func (s *Server) configure(lines ...string) {
	s.t.Helper()
	f, err := os.OpenFile(s.conf(), os.O_APPEND|os.O_WRONLY, 0)
	must(s.t, err)
	_, err = f.WriteString(strings.Join(lines, "\n") + "\n")
	must(s.t, err)
	must(s.t, f.Close())
}

// Configure adds lines to postgresql.conf and reloads.
func (s *Server) Configure(lines ...string) {
	s.t.Helper()
	s.configure(lines...)
	s.SQL("SELECT pg_reload_conf()")
}

// Place writes a file beside the data folder, which is the server's user's alone, and gives its path.
func (s *Server) Place(name string, content []byte) string {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	must(s.t, os.WriteFile(path, content, 0o600))
	if c := credential(s.t); c != nil {
		must(s.t, os.Chown(path, int(c.Uid), int(c.Gid)))
	}
	return path
}

// Folder makes an empty folder beside the data folder, for the server's user alone, and returns its path.
func (s *Server) Folder(name string) string {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	must(s.t, os.Mkdir(path, 0o700))
	if c := credential(s.t); c != nil {
		must(s.t, os.Chown(path, int(c.Uid), int(c.Gid)))
	}
	return path
}

// Configured adds lines to postgresql.conf of a stopped server.
func (s *Server) Configured(lines ...string) { s.t.Helper(); s.configure(lines...) }

// Deconfigure takes the lines that begin with a word out of postgresql.conf.
func (s *Server) Deconfigure(word string) {
	s.t.Helper()
	path := s.conf()
	text, err := os.ReadFile(path)
	must(s.t, err)
	lines := slices.DeleteFunc(strings.Split(string(text), "\n"), func(l string) bool { return strings.HasPrefix(l, word) })
	must(s.t, os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600))
}

// run runs one of PostgreSQL's programs to its end.
func (s *Server) run(program string, arguments ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := s.Command(ctx, program, arguments...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// Command is one of PostgreSQL's programs, run as the server's user.
func (s *Server) Command(ctx context.Context, program string, arguments ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(binDir(), program), arguments...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+s.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential(s.t)}
	return cmd
}

// Start starts the server, with these further arguments, and waits until it answers.
func (s *Server) Start(arguments ...string) {
	s.t.Helper()
	s.Launch(arguments...)
	s.Await("the server answers", func() bool {
		_, err := s.Try("SELECT 1")
		return err == nil
	})
}

// Launch starts the server and does not wait. It ends with the test at the latest.
func (s *Server) Launch(arguments ...string) {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(s.t, err)
	defer func() { _ = log.Close() }() // the server has its own
	cmd := s.Command(context.Background(), "postgres", append([]string{"-D", s.data(), "-c", "config_file=" + s.conf()}, arguments...)...)
	cmd.Stdout, cmd.Stderr = log, log
	must(s.t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Signal(syscall.SIGQUIT) // an immediate shutdown
		select {
		case <-ended:
		case <-time.After(patience):
			s.t.Errorf("postgres %d does not end", cmd.Process.Pid)
		}
	})
}

// Logged tells whether the server has written a text to its log.
func (s *Server) Logged(text string) bool {
	s.t.Helper()
	log, err := os.ReadFile(filepath.Join(s.Dir, "log"))
	must(s.t, err)
	return strings.Contains(string(log), text)
}

// Stop stops the server in a mode of pg_ctl: fast, immediate.
func (s *Server) Stop(mode string) {
	s.t.Helper()
	s.run("pg_ctl", "-D", s.data(), "-m", mode, "-w", "stop")
}

// Promote promotes a standby.
func (s *Server) Promote() {
	s.t.Helper()
	s.run("pg_ctl", "-D", s.data(), "-w", "promote")
}

// Signal sends a signal to the postmaster.
func (s *Server) Signal(signal syscall.Signal) {
	s.t.Helper()
	must(s.t, syscall.Kill(s.PID(), signal))
}

// PID is the postmaster's.
func (s *Server) PID() int {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	must(s.t, err)
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	must(s.t, err)
	return pid
}

// Access replaces pg_hba.conf and reloads.
func (s *Server) Access(lines ...string) {
	s.t.Helper()
	must(s.t, os.WriteFile(filepath.Join(s.Config, "pg_hba.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	s.run("pg_ctl", "-D", s.data(), "reload")
}

// HasSlotsByProtocol tells whether READ_REPLICATION_SLOT is there (PostgreSQL 15).
func (s *Server) HasSlotsByProtocol() bool {
	s.t.Helper()
	return s.SQL("SELECT current_setting('server_version_num')::int >= 150000") == "t"
}

// Try runs SQL and gives the rows, columns separated by "|".
func (s *Server) Try(sql string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", s.Dir, "-p", strconv.Itoa(int(s.Port)), "-U", dba, "-d", dba, "-f", "-")
	cmd.Stdin = strings.NewReader(sql)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// SQL is Try that must work.
func (s *Server) SQL(sql string) string {
	s.t.Helper()
	out, err := s.Try(sql)
	if err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return out
}

// WriteWAL writes about that many megabytes of WAL and makes a checkpoint.
func (s *Server) WriteWAL(megabytes int) {
	s.t.Helper()
	s.SQL(fmt.Sprintf("SELECT count(pg_logical_emit_message(false, 'test', repeat('x', 1 << 20))) FROM generate_series(1, %d); CHECKPOINT", megabytes))
}

// CatchUp waits until the standby has replayed all that s has, and makes it restartpoint there.
func (s *Server) CatchUp(standby *Server) {
	s.t.Helper()
	s.SQL("CHECKPOINT")
	end := s.SQL("SELECT pg_current_wal_lsn()")
	standby.Await("the standby has caught up", func() bool {
		return standby.SQL("SELECT pg_last_wal_replay_lsn() >= '"+end+"'") == "t"
	})
	standby.SQL("CHECKPOINT")
}

// Await waits for a condition.
func (s *Server) Await(what string, condition func() bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			log, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
			s.t.Fatalf("not in time: %s; the server's log:\n%s", what, log)
		}
	}
}

// MoveConfig moves the configuration of a stopped server out of its data folder, where Debian has it.
func (s *Server) MoveConfig() {
	s.t.Helper()
	s.Config = filepath.Join(s.Dir, "etc")
	must(s.t, os.Mkdir(s.Config, 0o700))
	for _, name := range []string{"postgresql.conf", "pg_hba.conf", "pg_ident.conf"} {
		must(s.t, os.Rename(filepath.Join(s.data(), name), filepath.Join(s.Config, name)))
	}
	if c := credential(s.t); c != nil {
		must(s.t, os.Chown(s.Config, int(c.Uid), int(c.Gid)))
	}
	s.configure("data_directory = '"+s.data()+"'", "hba_file = '"+s.Config+"/pg_hba.conf'", "ident_file = '"+s.Config+"/pg_ident.conf'")
}

// Move moves a folder of a stopped server, and leaves a symbolic link to where it is now.
func (s *Server) Move(folder, to string) {
	s.t.Helper()
	out, err := exec.CommandContext(s.t.Context(), "cp", "-a", folder, to).CombinedOutput()
	if err != nil {
		s.t.Fatalf("copy %s: %v\n%s", folder, err, out)
	}
	if c := credential(s.t); c != nil {
		must(s.t, os.Chown(filepath.Dir(to), int(c.Uid), int(c.Gid)))
	}
	must(s.t, os.RemoveAll(folder))
	must(s.t, os.Symlink(to, folder))
}
