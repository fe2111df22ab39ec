package postgres_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

const secret = "open-sesame"

// setConninfo changes the standby's primary_conninfo.
func setConninfo(standby *pgserver.Server, conninfo string) {
	standby.SQL("ALTER SYSTEM SET primary_conninfo = '" + strings.ReplaceAll(conninfo, "'", "''") + "'")
	standby.SQL("SELECT pg_reload_conf()")
	standby.Await("the setting is seen", func() bool { return standby.SQL("SHOW primary_conninfo") == conninfo })
}

// TestConninfo: everything that the walreceiver's libpq understands leads to the primary. What fails says so without the
// password.
func TestConninfo(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t)
	a := adapter(t, standby)
	tcp := fmt.Sprintf("port=%d user=postgres", primary.Port)
	for name, test := range map[string]struct {
		conninfo string
		want     string // in the error; "" when the primary answers
		class    postgres.Class
	}{
		"no conninfo":                {"", "primary_conninfo is empty", postgres.Configuration},
		"nobody there":               {"host=127.0.0.1 port=1 user=repuser password=" + secret, "127.0.0.1:1 as repuser: connection refused", postgres.Transient},
		"no such socket":             {"host=/nonexistent user=x password=" + secret, "/nonexistent", postgres.Transient},
		"no such name":               {"host=nobody.invalid user=x password=" + secret, "nobody.invalid", postgres.Transient},
		"unknown role":               {"host=127.0.0.1 " + strings.Replace(tcp, "=postgres", "=nobody", 1) + " password=" + secret, "nobody", postgres.Permission},
		"broken port":                {"host=127.0.0.1 port=many password=" + secret, "port in primary_conninfo has something that is not a port", postgres.Configuration},
		"broken quotes":              {"host=127.0.0.1 password='" + secret, "primary_conninfo is not understood", postgres.Configuration},
		"a blank in the password":    {"host=127.0.0.1 password=x " + secret + "=y", "its text is withheld", postgres.Configuration},
		"TLS required":               {"host=127.0.0.1 sslmode=require password=" + secret + " " + tcp, "TLS", postgres.Transient},
		"TLS required of an address": {"hostaddr=127.0.0.1 sslmode=require password=" + secret + " " + tcp, "TLS", postgres.Transient},

		"libpq's own": {"host=127.0.0.1 " + tcp + " keepalives=1 keepalives_idle=60 keepalives_interval=5 keepalives_count=5 tcp_user_timeout=1000 " +
			"application_name=pm02 fallback_application_name=x gssencmode=disable channel_binding=prefer krbsrvname=postgres " +
			"options='-c wal_sender_timeout=5s' sslcompression=0 connect_timeout=10 sslmode=prefer client_encoding=UTF8 replication=1", "", ""},
		"two addresses":         {"hostaddr=127.0.0.2,127.0.0.1 host=pm02.invalid,pm01.invalid " + tcp, "", ""},
		"an address alone":      {"hostaddr=127.0.0.1 " + tcp, "", ""},
		"an address and a name": {"host=pm01.invalid hostaddr=127.0.0.1 " + tcp, "", ""},
		"a URI":                 {fmt.Sprintf("postgresql://postgres@127.0.0.1:%d", primary.Port), "", ""},
		"a URI with more":       {fmt.Sprintf("postgresql://postgres@127.0.0.1:%d/x?sslmode=prefer&application_name=pm02", primary.Port), "", ""},
		"quoted":                {fmt.Sprintf(`host = '127.0.0.1' port='%d' user = 'post\gres'`, primary.Port), "", ""},
		"another database":      {"host=127.0.0.1 dbname=nonesuch " + tcp, "", ""},
		"any session":           {"host=127.0.0.1 target_session_attrs=any " + tcp, "", ""},
		"a session that writes": {"host=127.0.0.1 target_session_attrs=read-write " + tcp, "", ""},
		"a primary's session":   {"host=127.0.0.1 target_session_attrs=primary " + tcp, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			setConninfo(standby, test.conninfo)
			u, err := askUpstream(t, a, "own")
			wantClass(t, err, test.class)
			if text := fmt.Sprint(err); err != nil && (!strings.Contains(text, test.want) || strings.Contains(text, secret) || strings.Contains(text, "\n")) {
				t.Errorf("got %v, not …%s…", err, test.want)
			}
			if own, ok := u.Slot("own"); err == nil && (u.InRecovery || !ok || !own.RestartLSN.IsValid()) {
				t.Errorf("somebody else answered: %+v", u)
			}
			if strings.Contains(fmt.Sprintf("%+v %#v", err, err), secret) {
				t.Errorf("the password can be got out of the error")
			}
		})
	}
}

// TestSeveralHosts: among several hosts the primary is the one to ask.
func TestSeveralHosts(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t)
	if !primary.HasSlotsByProtocol() {
		return // PostgreSQL 13 does not say who is who when a connection begins
	}
	a := adapter(t, standby)
	setConninfo(standby, fmt.Sprintf("host=127.0.0.1,127.0.0.1,127.0.0.1 port=1,%d,%d user=postgres", standby.Port, primary.Port))
	if u, err := askUpstream(t, a, "own"); err != nil || u.Address != fmt.Sprintf("127.0.0.1:%d", primary.Port) {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestSeveralHostsOneHangs: a server that has lost its power does not answer at all. It does not use up the next
// one's time.
func TestSeveralHostsOneHangs(t *testing.T) {
	t.Parallel()
	primary := pgserver.New(t)
	hanging := pgserver.New(t)
	hanging.Signal(syscall.SIGSTOP)
	defer hanging.Signal(syscall.SIGCONT)
	s, err := postgres.OpenSource(t.Context(), fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%d,%d user=postgres", hanging.Port, primary.Port))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// TestOtherMember: another server is asked at an address or a name of its own, of whatever kind, also where the
// connection
// string names several.
func TestOtherMember(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t, "listen_addresses = '127.0.0.1,::1'")
	other := pgserver.New(t, "listen_addresses = '127.0.0.1,::1'")
	rest := fmt.Sprintf(" port=%d user=postgres", server.Port)
	twoPorts := fmt.Sprintf(" port=%d,%d user=postgres", server.Port, other.Port)
	for name, test := range map[string]struct{ conninfo, address, want string }{
		"an address":                {"host=192.0.2.1" + rest, "127.0.0.1", ""},
		"an IPv6 address":           {"host=192.0.2.1" + rest, "::1", ""},
		"a name":                    {"host=192.0.2.1" + rest, "localhost", ""},
		"a name that is not known":  {"host=127.0.0.1" + rest, "pm02.invalid", "pm02.invalid"},
		"beside an address":         {"host=vip.invalid hostaddr=192.0.2.1" + rest, "127.0.0.1", ""},
		"a URI":                     {fmt.Sprintf("postgresql://postgres@[2001:db8::1]:%d/x?sslmode=prefer", server.Port), "::1", ""},
		"one of several":            {"host=127.0.0.1,192.0.2.1" + rest, "127.0.0.1", ""},
		"none of several":           {"host=192.0.2.1,192.0.2.2" + rest, "127.0.0.1", ""},
		"one of several ports":      {"host=127.0.0.1,::1" + twoPorts, "127.0.0.1", ""},
		"the last of several ports": {fmt.Sprintf("host=127.0.0.9,127.0.0.1,::1 port=1,2,%d user=postgres", server.Port), "::1", ""},
		"none of several ports":     {"host=192.0.2.1,192.0.2.2" + twoPorts, "127.0.0.1", "host in primary_conninfo names several servers"},
		"none of several names":     {"host=192.0.2.1,192.0.2.2 sslmode=verify-full" + rest, "127.0.0.1", "host in primary_conninfo names several servers"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := postgres.OpenStandby(t.Context(), test.conninfo, test.address)
			if err == nil {
				u, err := s.Identify(t.Context())
				if err != nil || !strings.HasSuffix(u.Address, fmt.Sprintf(":%d", server.Port)) {
					t.Errorf("%+v, %v", u, err)
				}
				s.Close()
			}
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, not …%s…", err, test.want)
			}
		})
	}
}

// TestNotFollowed: what libpq may do and pgrex cannot is refused, by the name of the keyword and without a value.
func TestNotFollowed(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("PGSERVICEFILE", filepath.Join(folder, "services"))
	if err := os.WriteFile(filepath.Join(folder, "services"), []byte("[good]\nhost=127.0.0.1\nport=1\n[bad]\nnonsense="+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for conninfo, want := range map[string]string{
		"scram_client_key=" + secret:                      "scram_client_key in primary_conninfo stands for a password: pgrex cannot follow it",
		"scram_server_key=" + secret:                      "scram_server_key in primary_conninfo stands for a password: pgrex cannot follow it",
		"gssencmode=require":                              "gssencmode in primary_conninfo asks for encryption with GSSAPI: pgrex cannot follow it",
		"service=missing":                                 "service in primary_conninfo cannot be followed",
		"service=bad":                                     "service in primary_conninfo cannot be followed",
		"service=good":                                    "127.0.0.1:1 as ", // it got that far
		"servicefile=" + folder + "/services":             "withheld",        // of no libpq from 15 to 18
		"passfile=pass host=127.0.0.1":                    "passfile in primary_conninfo is a relative path",
		"host=127.0.0.1 hostaddr=127.0.0.1,127.0.0.2":     "hostaddr in primary_conninfo has not as many addresses",
		"postgres://x:" + secret + "@[::1/":               "withheld",
		"postgres://x:" + secret + "@[::1]x/":             "withheld",
		"postgres://x:" + secret + "%zz@h/":               "withheld",
		"postgres://x@h/?password=" + secret + "&port":    "withheld",
		"postgres://x@h/?password=" + secret + "=1":       "withheld",
		"host=127.0.0.1 \x00password=" + secret:           "withheld",
		"=" + secret:                                      "withheld",
		secret:                                            "withheld",
		"host=127.0.0.1 port=0 password=" + secret:        "port in primary_conninfo has something that is not a port",
		"host=127.0.0.1 port=65536 password=" + secret:    "port in primary_conninfo has something that is not a port",
		"host=127.0.0.1 port=1 user=x password=" + secret: "127.0.0.1:1 as x: connection refused",
	} {
		_, err := postgres.OpenSource(t.Context(), conninfo)
		if text := fmt.Sprintf("%v %+v %#v", err, err, err); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(text, secret) {
			t.Errorf("%s: got %v, not …%s…", conninfo, err, want)
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }() // files are only looked at once somebody listens
	port := listener.Addr().(*net.TCPAddr).Port
	for _, keyword := range []string{"sslrootcert", "sslcert", "sslcrl", "sslcrldir"} {
		conninfo := fmt.Sprintf("host=127.0.0.1 port=%d user=x sslmode=require sslrootcert=%s %s=relative", port, rootFile(t), keyword)
		if _, err := postgres.OpenSource(t.Context(), conninfo); err == nil || !strings.Contains(err.Error(), keyword+" in primary_conninfo is a relative path") {
			t.Errorf("%s: %v", keyword, err)
		}
	}
}

func rootFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(path, rootAuthority(t, "root").pem(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPassword: the standby's own password is used, wherever the walreceiver would find it, and is in no error.
func TestPassword(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t)
	a := adapter(t, standby)
	primary.SQL("SET password_encryption = 'scram-sha-256'; CREATE ROLE repuser LOGIN REPLICATION PASSWORD '" + secret + "'")
	primary.Access("local all all trust", "host replication repuser 127.0.0.1/32 scram-sha-256", "host postgres repuser 127.0.0.1/32 scram-sha-256",
		"host replication postgres 127.0.0.1/32 trust")
	where := fmt.Sprintf("host=127.0.0.1 port=%d user=repuser", primary.Port)
	passfile := filepath.Join(t.TempDir(), "pass")
	line := fmt.Sprintf("127.0.0.1:%d:replication:repuser:%s\n127.0.0.1:%d:postgres:repuser:%s\n", primary.Port, secret, primary.Port, secret)
	if err := os.WriteFile(passfile, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		conninfo string
		class    postgres.Class
	}{
		"right":            {where + " password=" + secret, ""},
		"wrong":            {where + " password=" + secret + "-not", postgres.Permission},
		"none":             {where + " passfile=/dev/null", postgres.Permission},
		"in a passfile":    {where + " passfile=" + passfile, ""}, // under the database "replication", as for the walreceiver
		"and in a URI":     {fmt.Sprintf("postgres://repuser:%s@127.0.0.1:%d", secret, primary.Port), ""},
		"wrong in the URI": {fmt.Sprintf("postgres://repuser:%s-not@127.0.0.1:%d", secret, primary.Port), postgres.Permission},
	} {
		t.Run(name, func(t *testing.T) {
			setConninfo(standby, test.conninfo)
			_, err := askUpstream(t, a, "own")
			wantClass(t, err, test.class)
			if err != nil && (strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "repuser") || !strings.Contains(err.Error(), "pg_hba.conf")) {
				t.Errorf("the error: %v", err)
			}
		})
	}
}

// TestSlotsBySQLRefused: PostgreSQL 13 and 14 tell of slots by SQL only, which pg_hba.conf may not allow.
func TestSlotsBySQLRefused(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t)
	primary.Access("local all all trust", "host replication all 127.0.0.1/32 trust")
	_, err := askUpstream(t, adapter(t, standby), "own")
	if primary.HasSlotsByProtocol() {
		wantClass(t, err, "") // nothing has to be opened
		return
	}
	wantClass(t, err, postgres.Permission)
	if !strings.Contains(fmt.Sprint(err), "must be let into the database postgres") {
		t.Errorf("the error: %v", err)
	}
}

// The name by which the primary knows a standby: what the connection string says, and not the environment.
func TestApplicationName(t *testing.T) {
	t.Setenv("PGAPPNAME", "of_the_environment")
	for conninfo, want := range map[string]string{
		"host=192.168.77.100 user=repl application_name=pm01":                                          "pm01",
		"application_name=pm09 host=192.168.77.100 application_name = 'pm 01' password='x y'":          "pm 01",
		"host=192.168.77.100 user=repl":                                                                "",
		"host=192.168.77.100 fallback_application_name=walreceiver":                                    "",
		"host=192.168.77.100 options='-c application_name=pm02'":                                       "",
		"host=192.168.77.100 application_name=pm01 sslmode=verify-full sslrootcert=/nowhere":           "pm01",
		"postgres://repl@192.168.77.100/?application_name=pm01&sslmode=verify-ca&sslrootcert=/nowhere": "pm01",
		"postgres://repl@192.168.77.100/?application_name=pm01":                                        "pm01",
		"host=192.168.77.100 application_name='pm01":                                                   "",
	} {
		if name := postgres.ApplicationNameIn(conninfo); name != want {
			t.Errorf("%s: %q, want %q", conninfo, name, want)
		}
	}
}

// A standby tells its own; a primary, which follows nobody, does not.
func TestApplicationNameOfServers(t *testing.T) {
	t.Parallel()
	primary, standby := pair(t)
	setConninfo(standby, primary.Conninfo()+" application_name=pm02")
	if name := observe(t, adapter(t, standby)).ApplicationName; name != "pm02" {
		t.Errorf("the standby's is %q", name)
	}
	if name := observe(t, adapter(t, primary)).ApplicationName; name != "" {
		t.Errorf("the primary's is %q", name)
	}
}
