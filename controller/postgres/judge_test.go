package postgres_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/controller/postgres"
	"github.com/pgrex/pgrex/testenv/pgserver"
)

// psqlCommand is PostgreSQL 15's own, with the libpq of the servers under test. Debian's in the PATH adds a host of
// its own to
// what it is given.
func psqlCommand(ctx context.Context, t *testing.T, arguments ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(ctx, "/usr/lib/postgresql/15/bin/psql", append([]string{"-XAtqw"}, arguments...)...)
	cmd.Dir, cmd.Env = "/", os.Environ()
	if servers := os.Getenv("PGREX_PG_BINDIR"); servers != "" {
		library := filepath.Join(filepath.Dir(servers), "lib")
		found, err := filepath.Glob(filepath.Join(library, "libpq.so.5.*"))
		if err != nil || len(found) != 1 {
			t.Fatalf("libpq in %s: %v, %v", library, found, err)
		}
		folder := t.TempDir()
		if err := os.Symlink(found[0], filepath.Join(folder, "libpq.so.5")); err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+folder+":"+library)
	}
	return cmd
}

// judged is libpq's verdict on a connection string: psql's.
func judged(t *testing.T, conninfo string) (verdict, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := psqlCommand(ctx, t, "-d", conninfo, "-c", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
	out, err := cmd.CombinedOutput()
	switch said := strings.TrimSpace(string(out)); {
	case err != nil:
		return refused, said
	case said == "t":
		return overTLS, said
	default:
		return plain, said
	}
}

// ours is pgrex's verdict. How it is connected is asked at the server, of the newest session: an older one may not have
// ended there yet.
func ours(t *testing.T, server *pgserver.Server, conninfo string) (verdict, string) {
	t.Helper()
	source, err := postgres.OpenSource(t.Context(), conninfo)
	if err != nil {
		return refused, err.Error()
	}
	defer source.Close()
	if server.SQL("SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'pgrex' "+
		"ORDER BY backend_start DESC LIMIT 1") == "t" {
		return overTLS, ""
	}
	return plain, ""
}

// files are what connection strings name: $root and so on.
type files struct {
	t      *testing.T
	folder string
}

func (f files) write(name string, content ...[]byte) string {
	f.t.Helper()
	path := filepath.Join(f.folder, name)
	var all []byte
	for _, c := range content {
		all = append(all, c...)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, all, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// serveTLS makes the server show a certificate.
func serveTLS(server *pgserver.Server, name string, l leaf) {
	certificate := server.Place(name+".crt", l.chain)
	server.Configure("ssl = on", "ssl_cert_file = '"+certificate+"'", "ssl_key_file = '"+server.Place(name+".key", l.key)+"'")
	server.Await("the certificate "+name, func() bool { return server.SQL("SHOW ssl_cert_file") == certificate })
}

// fill puts paths and the port into a connection string, and adds what it does not say.
func (f files) fill(server *pgserver.Server, conninfo string) string {
	if !strings.Contains(conninfo, "://") {
		if !strings.Contains(conninfo, "port=") {
			conninfo += " port=$port"
		}
		if !strings.Contains(conninfo, "user=") {
			conninfo += " user=postgres"
		}
	}
	owner := "postgres"
	if os.Getuid() != 0 {
		owner = os.Getenv("USER")
	}
	return strings.NewReplacer("$/", f.folder+"/", "$port", fmt.Sprint(server.Port), "$socket", server.Dir, "$owner", owner).Replace(conninfo)
}

// nameHash is the hash under which OpenSSL looks for what an authority has issued.
func nameHash(t *testing.T, certificate string) string {
	t.Helper()
	return openssl(t, "x509", "-noout", "-subject_hash", "-in", certificate)
}

// encrypt makes the client's key in other forms.
func encrypt(t *testing.T, folder string) {
	t.Helper()
	key := []string{"-in", folder + "/client.key", "-out"}
	openssl(t, append(append([]string{"pkcs8", "-topk8", "-passout", "pass:a b"}, key...), folder+"/client-pkcs8.key")...)
	openssl(t, append(append([]string{"ec", "-aes128", "-passout", "pass:a b"}, key...), folder+"/client-old.key")...)
	openssl(t, append(append([]string{"pkcs8", "-topk8", "-nocrypt", "-outform", "DER"}, key...), folder+"/client.der")...)
}

func openssl(t *testing.T, arguments ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "openssl", arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %v: %v\n%s", arguments, err, out)
	}
	return strings.TrimSpace(string(out))
}
