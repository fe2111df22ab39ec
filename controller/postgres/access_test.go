package postgres_test

import (
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

func TestAccess(t *testing.T) {
	// A tool that would wait for a host that has lost its power notices that.
	const notices = "keepalives=1 keepalives_count=3 keepalives_idle=10 keepalives_interval=5 "
	for conninfo, want := range map[string]string{
		"host=192.0.2.1 port=5432 user=rep password=secret application_name=pm01 sslmode=prefer": "host=192.0.2.1 " + notices + "port=5432 sslmode=prefer tcp_user_timeout=25000 user=rep",
		`password = 'secret' host='192.0.2.1' user=rep`:                                          "host=192.0.2.1 " + notices + "tcp_user_timeout=25000 user=rep",
		`user=r\ p host=x password='secret' keepalives_idle=60 dbname=x`:                         "host=x " + notices + "tcp_user_timeout=25000 user='r p'",
		`user=rep host=x,y password=secret`:                                                      "host=x,y " + notices + "target_session_attrs=primary tcp_user_timeout=25000 user=rep",
		`user=rep password=secret sslpassword='se\'cret'  host=x`:                                "host=x " + notices + "service=pgrex tcp_user_timeout=25000 user=rep",
		`postgresql://rep:secret@[2001:db8::1]:5433,x/y?options=-c%20a%3Db&sslpassword=secret`:   "host=2001:db8::1,x " + notices + "options='-c a=b' port=5433, service=pgrex target_session_attrs=primary tcp_user_timeout=25000 user=rep",
		"host=x oauth_client_secret=secret":                                                      "host=x " + notices + "service=pgrex tcp_user_timeout=25000",
	} {
		access, err := postgres.AccessFor(conninfo)
		if err != nil || access.Conninfo != want {
			t.Errorf("%s: %q, %v, want %q", conninfo, access.Conninfo, err, want)
		}
	}
	for _, conninfo := range []string{"sslpassword='hidden '", "sslpassword='hidden\nx'", "oauth_client_secret=hidden" + strings.Repeat("x", 1000)} {
		if access, err := postgres.AccessFor(conninfo); err == nil || strings.Contains(fmt.Sprintf("%v %+v", err, access), "hidden") ||
			!strings.Contains(err.Error(), "in primary_conninfo cannot be handed to a program") {
			t.Errorf("%q: %+v, %v", conninfo, access, err)
		}
	}
}

// A connection string is read as it was written, whatever is in it.
func TestConninfoIsReadAsWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name, password := rapid.String().Draw(t, "name"), rapid.String().Draw(t, "password")
		conninfo := fmt.Sprintf("application_name = %s password=%s host = x", quoted(t, name), quoted(t, password))
		if strings.Contains(conninfo, "\x00") {
			return
		}
		if got := postgres.ApplicationNameIn(conninfo); got != name {
			t.Errorf("%q: %q", conninfo, got)
		}
	})
}

// quoted writes a value in one of the ways that libpq takes.
func quoted(t *rapid.T, value string) string {
	inQuotes := rapid.Bool().Draw(t, "in quotes") || value == ""
	var b strings.Builder
	for i, c := range []byte(value) {
		special := strings.IndexByte(" \t\n\v\f\r'\\", c) >= 0
		if inQuotes {
			special = c == '\'' || c == '\\'
		}
		if special || rapid.Bool().Draw(t, fmt.Sprint("backslash ", i)) {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	if inQuotes {
		return "'" + b.String() + "'"
	}
	return b.String()
}

// written is a connection string with a password that is hard to quote.
type written struct{ password, conninfo string }

// marker is a part of every password.
const marker = "zq7"

func passwords() *rapid.Generator[written] {
	hard := rapid.StringOfN(rapid.SampledFrom([]rune(`'"\ =&%#:@/?$xy	`)), 0, 6, -1)
	return rapid.Custom(func(t *rapid.T) written {
		password := hard.Draw(t, "before") + marker + hard.Draw(t, "after")
		rest := "host=127.0.0.1 port=$port user=scrammed"
		if rapid.Bool().Draw(t, "URI") {
			var encoded strings.Builder
			for _, c := range []byte(password) {
				fmt.Fprintf(&encoded, "%%%02x", c)
			}
			return written{password, "postgresql://scrammed:" + encoded.String() + "@127.0.0.1:$port/"}
		}
		before := "password" + rapid.SampledFrom([]string{"=", " = ", "= ", "\t="}).Draw(t, "=") + quoted(t, password)
		switch rapid.IntRange(0, 2).Draw(t, "place") {
		case 0:
			return written{password, rest + " " + before}
		case 1: // no blank is needed behind a quote
			return written{password, "port=$port user=scrammed host='127.0.0.1'" + before}
		}
		return written{password, before + " " + rest}
	})
}

// TestPasswordInNoArgument: however a password is quoted, it is in no argument, and libpq gets in.
func TestPasswordInNoArgument(t *testing.T) {
	t.Parallel()
	server := pgserver.New(t)
	server.SQL("CREATE ROLE scrammed LOGIN REPLICATION")
	server.Access("local all all trust", "host all scrammed all scram-sha-256", "host replication scrammed all scram-sha-256")
	const tries = 40
	for seed := range tries {
		w := passwords().Example(seed)
		server.SQL("ALTER ROLE scrammed PASSWORD '" + strings.ReplaceAll(w.password, "'", "''") + "'")
		conninfo := strings.ReplaceAll(w.conninfo, "$port", fmt.Sprint(server.Port))
		access, err := postgres.AccessFor(conninfo)
		if err != nil || strings.Contains(access.Conninfo, marker) {
			t.Errorf("%s: %+v, %v", conninfo, access, err)
			continue
		}
		letsIn(t, access, "dbname=postgres")
		source, err := postgres.OpenSource(t.Context(), conninfo)
		if err != nil {
			t.Errorf("%s: %v", conninfo, err)
			continue
		}
		source.Close()
	}
}

// letsIn has psql connect as pg_rewind and pg_basebackup would.
func letsIn(t *testing.T, access postgres.Access, more string) {
	t.Helper()
	cmd := psqlCommand(t.Context(), t, "-d", access.Conninfo+" "+more, "-c", "SELECT 'in'")
	closeFile, err := access.Give(cmd)
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if strings.TrimSpace(string(out)) != "in" {
		t.Errorf("%v: %v: %s", cmd.Args, err, out)
	}
	if err := closeFile(); err != nil {
		t.Error(err)
	}
	if slices.ContainsFunc(cmd.Args, func(a string) bool { return strings.Contains(a, marker) }) {
		t.Errorf("%q", cmd.Args)
	}
}

// TestSecretsThroughAServiceFile: what libpq takes from no variable goes another way, together with an own service's
// settings.
func TestSecretsThroughAServiceFile(t *testing.T) {
	server := pgserver.New(t)
	root := rootAuthority(t, "root")
	client := root.named("certified")
	f := files{t, t.TempDir()}
	f.write("client.crt", client.chain)
	f.write("client.key", client.key)
	openssl(t, "pkcs8", "-topk8", "-passout", "pass:a "+marker, "-in", f.folder+"/client.key", "-out", f.folder+"/client-pkcs8.key")
	if err := os.Chmod(f.folder+"/client-pkcs8.key", 0o600); err != nil {
		t.Fatal(err)
	}
	server.Configure("ssl_ca_file = '" + server.Place("root.crt", root.pem()) + "'")
	serveTLS(server, "server", root.issue(&x509.Certificate{DNSNames: []string{"pm01.test"}}))
	server.SQL("CREATE ROLE certified LOGIN REPLICATION; CREATE ROLE scrammed LOGIN REPLICATION PASSWORD 'a " + marker + "'")
	server.Access("local all all trust", "host all scrammed all scram-sha-256", "hostssl all certified all cert", "hostssl replication certified all cert",
		"host replication scrammed all scram-sha-256")
	t.Setenv("PGSERVICEFILE", f.write("services", fmt.Appendf(nil, "[own]\nhost=127.0.0.1\nport=%d\nuser=scrammed\npassword=wrong\n", server.Port),
		fmt.Appendf(nil, "[whole]\nhost=127.0.0.1\nport=%d\nuser=scrammed\npassword=a %s\n", server.Port, marker)))
	for name, conninfo := range map[string]string{
		"sslpassword": fmt.Sprintf("host=127.0.0.1 port=%d user=certified sslmode=require sslcert=%[2]s/client.crt sslkey=%[2]s/client-pkcs8.key sslpassword='a %s'",
			server.Port, f.folder, marker),
		"a service":                 "service=whole",
		"a service, and a password": "service=own password='a " + marker + "'",
		"a URI with a service":      "postgresql://?service=own&password=a%20" + marker,
	} {
		t.Run(name, func(t *testing.T) {
			access, err := postgres.AccessFor(conninfo)
			if err != nil || strings.Contains(access.Conninfo, marker) {
				t.Fatalf("%+v, %v", access, err)
			}
			letsIn(t, access, "dbname=postgres")
			source, err := postgres.OpenSource(t.Context(), conninfo)
			if err != nil {
				t.Fatal(err)
			}
			source.Close()
		})
	}
}

// A program without secrets gets no further file.
func TestAccessWithoutSecrets(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "true")
	var access postgres.Access
	closeFile, err := access.Give(cmd)
	if err != nil || closeFile() != nil || len(cmd.Env)+len(cmd.ExtraFiles) != 0 {
		t.Errorf("%v, %v", cmd.Env, err)
	}
}
