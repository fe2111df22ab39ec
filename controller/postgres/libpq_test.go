package postgres_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgrex/pgrex/testenv/pgserver"
)

// verdict is what becomes of a connection.
type verdict string

const (
	refused verdict = "refused"
	plain   verdict = "plain"
	overTLS verdict = "TLS"
)

// agreement is a connection string on which pgrex and libpq have to agree, and how.
type agreement struct {
	conninfo string
	want     verdict
	says     string // pgrex, where it refuses
}

// TestAsLibpq: pgrex connects where libpq does, as libpq does, and nowhere else.
func TestAsLibpq(t *testing.T) {
	root, stranger := rootAuthority(t, "root"), rootAuthority(t, "stranger")
	middle := root.below("middle")
	f := files{t, t.TempDir()}
	server := pgserver.New(t, "listen_addresses = '127.0.0.1,::1'")
	server.Configure("ssl_ca_file = '" + server.Place("root.crt", root.pem()) + "'")
	server.SQL("CREATE ROLE tls_only LOGIN REPLICATION; CREATE ROLE plain_only LOGIN REPLICATION; CREATE ROLE certified LOGIN REPLICATION; " +
		"SET password_encryption = 'scram-sha-256'; CREATE ROLE scrammed LOGIN REPLICATION PASSWORD 'secret'")
	var access []string
	for _, database := range []string{"all", "replication"} {
		access = append(access, "local "+database+" all trust", "hostssl "+database+" tls_only all trust", "hostnossl "+database+" plain_only all trust",
			"hostssl "+database+" certified all cert", "host "+database+" scrammed all scram-sha-256", "host "+database+" postgres all trust")
	}
	server.Access(access...)
	t.Setenv("PGCONNECT_TIMEOUT", "10")
	t.Setenv("PGDATABASE", "postgres")
	home := f.write("home/empty")
	t.Setenv("HOME", filepath.Dir(home))
	t.Setenv("SSL_CERT_FILE", f.write("root.crt", root.pem())) // read once: no other test asks for the system's
	major := server.SQL("SELECT current_setting('server_version_num')::int / 10000")
	since := func(first string) verdict { // of what the server knows
		if major < first {
			return refused
		}
		return overTLS
	}

	expired, early := nameTemplate("pm01.test"), nameTemplate("pm01.test")
	expired.NotAfter, early.NotBefore = time.Now().Add(-time.Minute), time.Now().Add(30*time.Minute)
	mail := nameTemplate("pm01.test")
	mail.EmailAddresses = []string{"dba@pm01.test"}
	forClients, forAll, forServers := nameTemplate("pm01.test"), nameTemplate("pm01.test"), nameTemplate("pm01.test")
	forClients.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	forAll.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	forServers.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	twoNames := &x509.Certificate{Subject: pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
		{Type: []int{2, 5, 4, 3}, Value: "pm01.test"}, {Type: []int{2, 5, 4, 3}, Value: "pm02.test"},
	}}}
	textAddress := nameTemplate("x")
	textAddress.DNSNames = []string{"127.0.0.1"}
	common, revoked, below := root.named("pm01.test"), root.named("pm01.test"), middle.issue(nameTemplate("pm01.test"), middle)
	client, strangersClient := root.named("certified"), stranger.named("certified")
	own := selfSignedAuthority(t, "pm01.test", x509.KeyUsageDigitalSignature)

	f.write("stranger.crt", stranger.pem())
	f.write("middle.crt", middle.pem())
	f.write("both.crt", middle.pem(), root.pem())
	f.write("own.crt", own.pem())
	f.write("garbage.crt", []byte("garbage"))
	f.write("root.crl", root.revokes(time.Hour, revoked))
	f.write("clean.crl", root.revokes(time.Hour))
	f.write("old.crl", root.revokes(-time.Minute))
	f.write("strangers.crl", stranger.revokes(time.Hour))
	f.write("both.crl", root.revokes(time.Hour), middle.revokes(time.Hour))
	f.write("middle-revokes.crl", root.revokes(time.Hour), middle.revokes(time.Hour, below))
	f.write("garbage.crl", []byte("garbage"))
	f.write("client.crt", client.chain)
	f.write("client.key", client.key)
	f.write("stranger-client.crt", strangersClient.chain)
	f.write("stranger-client.key", strangersClient.key)
	if err := os.Chmod(f.write("open.key", client.key), 0o644); err != nil {
		t.Fatal(err)
	}
	for folder, list := range map[string][]byte{"revoking": root.revokes(time.Hour, revoked), "clean": root.revokes(time.Hour)} {
		hash := nameHash(t, f.folder+"/root.crt")
		f.write("crl-"+folder+"/"+hash+".r0", list)
	}
	f.write("crl-none/unhashed.crl", root.revokes(time.Hour))
	f.write("home-root/.postgresql/root.crt", root.pem())
	f.write("home-stranger/.postgresql/root.crt", stranger.pem())
	f.write("home-revoking/.postgresql/root.crt", root.pem())
	f.write("home-revoking/.postgresql/root.crl", root.revokes(time.Hour, revoked))
	f.write("home-client/.postgresql/postgresql.crt", client.chain)
	f.write("home-client/.postgresql/postgresql.key", client.key)
	encrypt(t, f.folder)
	f.write("pass", fmt.Appendf(nil, "127.0.0.1:%d:*:scrammed:secret\n", server.Port))
	f.write("pass-second", fmt.Appendf(nil, "127.0.0.1:1:*:scrammed:wrong\n127.0.0.1:%d:*:scrammed:secret\n", server.Port))
	if err := os.Chmod(f.write("pass-open", fmt.Appendf(nil, "*:*:*:*:secret\n")), 0o640); err != nil {
		t.Fatal(err)
	}
	six := overTLS
	if probe, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "[::1]:0"); err != nil {
		six = refused // this machine has no IPv6
	} else {
		_ = probe.Close()
	}

	const full, ca = "sslmode=verify-full sslrootcert=$/root.crt ", "sslmode=verify-ca sslrootcert=$/root.crt "
	const pm01 = "host=pm01.test hostaddr=127.0.0.1 "
	const mine = "sslcert=$/client.crt sslkey=$/client.key "
	for i, group := range []struct {
		name   string
		server leaf
		all    []agreement
	}{
		{"common name", common, []agreement{
			{full + pm01, overTLS, ""}, // the one that pgconn alone refuses
			{full + "host=PM01.Test hostaddr=127.0.0.1", overTLS, ""},
			{full + "host=pm02.test hostaddr=127.0.0.1", refused, `not for the host "pm02.test": it is for ["pm01.test"]`},
			{full + "host=127.0.0.1", refused, "not for the host"},
			{full + "hostaddr=127.0.0.1", refused, "host in primary_conninfo is not set"},
			{ca + "host=127.0.0.1", overTLS, ""},
			{ca + "hostaddr=127.0.0.1", overTLS, ""},
			{"sslmode=require host=127.0.0.1", overTLS, ""},
			{"sslmode=require sslrootcert=$/stranger.crt host=127.0.0.1", refused, "unknown authority"},
			{"sslmode=require sslrootcert=$/root.crt host=127.0.0.1", overTLS, ""},
			{"sslmode=require sslrootcert=$/nothing.crt host=127.0.0.1", overTLS, ""},
			{"sslmode=verify-ca sslrootcert=$/nothing.crt host=127.0.0.1", refused, "sslrootcert in primary_conninfo leads to"},
			{"sslmode=verify-full " + pm01, refused, "sslrootcert in primary_conninfo leads to"},
			{"sslmode=require sslrootcert=$/garbage.crt host=127.0.0.1", refused, "sslrootcert in primary_conninfo leads to"},
			{"sslmode=prefer sslrootcert=$/stranger.crt host=127.0.0.1", plain, ""},
			{"sslmode=prefer sslrootcert=$/garbage.crt host=127.0.0.1", plain, ""},
			{"sslmode=prefer sslrootcert=$/stranger.crt host=127.0.0.1 user=tls_only", refused, "tls_only"},
			{"sslmode=prefer host=127.0.0.1", overTLS, ""},
			{"sslmode=prefer host=127.0.0.1 user=plain_only", plain, ""},
			{"sslmode=require host=127.0.0.1 user=plain_only", refused, "plain_only"},
			{"sslmode=allow host=127.0.0.1", plain, ""},
			{"sslmode=allow host=127.0.0.1 user=tls_only", overTLS, ""},
			{"sslmode=allow host=127.0.0.1 user=tls_only sslrootcert=$/stranger.crt", refused, "unknown authority"},
			{"sslmode=disable host=127.0.0.1", plain, ""},
			{"sslmode=disable host=127.0.0.1 user=tls_only", refused, "tls_only"},
			{"requiressl=1 host=127.0.0.1 user=plain_only", refused, "plain_only"},
			{"sslmode=verify host=127.0.0.1", refused, "sslmode in primary_conninfo is none of"},
			{"sslmode='' host=127.0.0.1", refused, "sslmode in primary_conninfo is none of"},
			{full + "host='' hostaddr=127.0.0.1", refused, "host in primary_conninfo is not set"},
			{full + "host=localhost hostaddr=127.0.0.1", refused, "not for the host"},
			{full + "host=pm01.test,pm01.test hostaddr=127.0.0.1,127.0.0.1", overTLS, ""},
			{full + "host=nowhere.invalid,pm01.test hostaddr=,127.0.0.1", overTLS, ""},
			{full + "host=pm02.test,pm01.test hostaddr=127.0.0.1,127.0.0.1", refused, "pm02.test"}, // and there it ends
			{full + "host=pm02.test,pm01.test hostaddr=127.0.0.1", refused, "hostaddr in primary_conninfo has not as many"},
			{"host=127.0.0.1,127.0.0.1,127.0.0.1 port=1,$port,2 sslmode=require", overTLS, ""},
			{"host=127.0.0.1,127.0.0.1,127.0.0.1 port=1,$port", refused, "port in primary_conninfo has not as many"},
			{"hostaddr=127.0.0.1,127.0.0.1 port=1,$port sslmode=require", overTLS, ""},
			{"hostaddr=pm01.test", refused, "hostaddr in primary_conninfo has something that is not an IP address"},
			{"hostaddr=127.0.0.2 host=127.0.0.1", refused, "127.0.0.2"},
			{"host=::1 sslmode=require", six, ""},
			{"hostaddr=::1 host=pm01.test " + full, six, ""},
			{"postgresql://postgres@[::1]:$port/postgres?sslmode=require", six, ""},
			{"postgresql://postgres@pm01.test:$port/postgres?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert=$/root.crt", overTLS, ""},
			{"postgresql://postgres@127.0.0.1:1,127.0.0.1:$port/postgres?ssl=true", overTLS, ""},
			{"postgresql://post%67res@127.0.0.1:$port?sslmode=disable", plain, ""},
			{"postgresql://postgres@127.0.0.1:$port?sslmode=disable&nonsense=1", refused, "withheld"},
			{"postgresql://postgres@127.0.0.1:$port?sslmode", refused, "withheld"},
			{"host=127.0.0.1 nonsense=1", refused, "withheld"},
			{"host=127.0.0.1 port=many", refused, "port in primary_conninfo"},
			{"host=$socket sslmode=require", plain, ""},
			{"host=$socket sslmode=require requirepeer=$owner", plain, ""},
			{"host=$socket requirepeer=nobody", refused, "requirepeer in primary_conninfo is not the user"},
			{"host=127.0.0.1 requirepeer=nobody sslmode=disable", plain, ""},
			{"host=127.0.0.1 gssencmode=require", refused, "gssencmode in primary_conninfo asks for encryption with GSSAPI"},
			{"host=127.0.0.1 gssencmode=disable sslmode=disable", plain, ""},
			{"host=127.0.0.1 ssl_max_protocol_version=TLSv1.2 sslmode=require", overTLS, ""},
			{"host=127.0.0.1 ssl_min_protocol_version=tlsv1.3 sslmode=require", overTLS, ""},
			{"host=127.0.0.1 ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", refused, "ssl_min_protocol_version in primary_conninfo is higher"},
			{"host=127.0.0.1 ssl_min_protocol_version=SSLv3", refused, "ssl_min_protocol_version in primary_conninfo is none of"},
			{"host=127.0.0.1 sslcompression=1 sslsni=0 krbsrvname=x sslmode=require", overTLS, ""},
			{"host=127.0.0.1 channel_binding=always", refused, "channel_binding in primary_conninfo is none of"},
			{"host=127.0.0.1 user=scrammed password=secret channel_binding=require sslmode=require", overTLS, ""},
			{"host=127.0.0.1 user=scrammed password=secret channel_binding=require sslmode=disable", refused, "channel binding"},
			{"host=127.0.0.1 channel_binding=require sslmode=require", refused, "channel binding"},
			{"host=127.0.0.1 user=scrammed password=wrong sslmode=require", refused, "scrammed"},
			{"host=127.0.0.1 user=scrammed sslmode=require passfile=$/pass", overTLS, ""},
			{"host=127.0.0.1 user=scrammed sslmode=require passfile=$/pass-open", refused, "scrammed"},
			{"host=127.0.0.1,127.0.0.1 port=1,$port user=scrammed passfile=$/pass-second", overTLS, ""},
			{"hostaddr=127.0.0.1 user=scrammed passfile=$/pass-second", overTLS, ""},
			{"host=pm09.test hostaddr=127.0.0.1 user=scrammed passfile=$/pass-second", refused, "scrammed"},
		}},
		{"client certificate", common, []agreement{
			{"host=127.0.0.1 user=certified sslmode=require", refused, "certified"},
			{"host=127.0.0.1 user=certified sslmode=require sslcert=$/client.crt sslkey=$/client.key", overTLS, ""},
			{"host=127.0.0.1 user=certified sslmode=require sslcert=$/client.crt sslkey=$/open.key", refused, "sslkey in primary_conninfo leads to"},
			{"host=127.0.0.1 user=certified sslmode=require sslcert=$/client.crt sslkey=$/nothing", refused, "sslkey in primary_conninfo"},
			{"host=127.0.0.1 user=certified sslmode=require sslcert=$/nothing sslkey=$/client.key", refused, "certified"},
			{"host=127.0.0.1 sslmode=require sslcert=$/nothing", overTLS, ""},
			{"host=127.0.0.1 sslmode=require sslcert=$/client.crt", refused, "sslkey in primary_conninfo"},
			{"host=127.0.0.1 user=certified sslmode=require sslcert=$/client.crt sslkey=$/stranger-client.key", refused, "sslcert in primary_conninfo and sslkey"},
			{"host=127.0.0.1 sslmode=require sslcert=$/stranger-client.crt sslkey=$/stranger-client.key", refused, ""},
			{"host=127.0.0.1 user=certified sslmode=require sslcert=$/client.crt sslkey=$/client.der", overTLS, ""},
			{"host=127.0.0.1 user=certified sslmode=require sslcert=$/client.crt sslkey=$/client-pkcs8.key sslpassword='a b'", overTLS, ""},
			{"host=127.0.0.1 user=certified sslmode=require sslcert=$/client.crt sslkey=$/client-old.key sslpassword='a b'", overTLS, ""},
			{"host=127.0.0.1 user=certified sslmode=require sslcert=$/client.crt sslkey=$/client-pkcs8.key sslpassword=wrong", refused, "sslpassword in primary_conninfo"},
			{"host=127.0.0.1 sslmode=require sslcert=$/client.crt sslkey=engine:key", refused, "sslkey in primary_conninfo names a key of an OpenSSL engine"},
		}},
		{"newer keywords", common, []agreement{
			{"since=16 sslcertmode=require sslmode=require host=127.0.0.1 " + mine, overTLS, ""},
			{"since=16 sslcertmode=require sslmode=require host=127.0.0.1", refused, "without a valid SSL certificate"},
			{"since=16 sslcertmode=require sslmode=disable host=127.0.0.1 " + mine, refused, "did not request an SSL certificate"},
			{"since=16 sslcertmode=disable sslmode=require host=127.0.0.1 user=certified " + mine, refused, "certified"},
			{"since=16 sslcertmode=disable sslmode=require host=127.0.0.1 sslcert=$/client.crt sslkey=$/nothing", overTLS, ""},
			{"since=16 sslcertmode=maybe host=127.0.0.1", refused, "sslcertmode in primary_conninfo is none of"},
			{"since=16 require_auth=scram-sha-256 sslmode=require host=127.0.0.1 user=scrammed password=secret", overTLS, ""},
			{"since=16 require_auth=scram-sha-256 sslmode=require host=127.0.0.1", refused, "did not complete authentication"},
			{"since=16 require_auth=none sslmode=require host=127.0.0.1", overTLS, ""},
			{"since=16 require_auth=!none sslmode=require host=127.0.0.1", refused, "did not complete authentication"},
			{"since=16 require_auth=md5,password host=127.0.0.1 user=scrammed password=secret", refused, "requested scram-sha-256"},
			{"since=16 require_auth=trust host=127.0.0.1", refused, "require_auth in primary_conninfo has a value that libpq does not take"},
			{"since=16 load_balance_hosts=random host=127.0.0.1,127.0.0.1 sslmode=require", overTLS, ""},
			{"since=16 load_balance_hosts=never host=127.0.0.1", refused, "load_balance_hosts in primary_conninfo"},
			{"since=16 sslrootcert=system " + pm01, overTLS, ""},
			{"since=16 sslrootcert=system host=127.0.0.1", refused, "not for the host"},
			{"since=16 sslrootcert=system sslmode=verify-ca " + pm01, refused, "sslmode in primary_conninfo is weaker"},
			{"since=17 sslnegotiation=direct sslmode=require host=127.0.0.1", since("17"), ""},
			{"since=17 sslnegotiation=direct host=127.0.0.1", refused, "sslmode in primary_conninfo is weaker"},
			{"since=18 min_protocol_version=3.2 sslmode=require host=127.0.0.1", since("18"), "protocol version"},
			{"since=18 max_protocol_version=latest sslmode=require host=127.0.0.1", overTLS, ""},
			{"since=18 min_protocol_version=3.2 max_protocol_version=3.0 host=127.0.0.1", refused, "min_protocol_version in primary_conninfo"},
			{"since=18 sslkeylogfile=$/keys oauth_scope=x sslmode=require host=127.0.0.1", overTLS, ""},
		}},
		{"alternative name", root.named("pm02.test", "pm01.test"), []agreement{
			{full + pm01, overTLS, ""},
			{full + "host=pm02.test hostaddr=127.0.0.1", refused, "pm02.test"},
		}},
		{"wildcard", root.named("x", "*.test"), []agreement{
			{full + pm01, overTLS, ""},
			{full + "host=a.b.test hostaddr=127.0.0.1", refused, "a.b.test"},
			{full + "host=test hostaddr=127.0.0.1", refused, "test"},
		}},
		{"wildcard in the common name", root.named("*.test"), []agreement{{full + pm01, overTLS, ""}}},
		{"a part of a label", root.named("x", "pm*.test"), []agreement{{full + pm01, refused, "pm*.test"}}},
		{"address", root.named("pm01.test", "127.0.0.1", "::1"), []agreement{
			{full + "host=127.0.0.1", overTLS, ""},
			{full + "host=::1", six, ""},
			{full + "host=127.0.0.2 hostaddr=127.0.0.1", refused, "127.0.0.2"},
			{full + pm01, overTLS, ""}, // there is no alternative name of its kind
		}},
		{"another address", root.named("127.0.0.1", "192.0.2.1"), []agreement{{full + "host=127.0.0.1", refused, "192.0.2.1"}}},
		{"address in the common name", root.named("127.0.0.1"), []agreement{{full + "host=127.0.0.1", overTLS, ""}}},
		{"address in the common name, and a name", root.named("127.0.0.1", "pm01.test"), []agreement{
			{full + "host=127.0.0.1", overTLS, ""},
			{full + pm01, overTLS, ""},
		}},
		{"address as text", root.issue(textAddress), []agreement{{full + "host=127.0.0.1", overTLS, ""}}},
		{"mail address", root.issue(mail), []agreement{{full + pm01, overTLS, ""}}},
		{"two common names", root.issue(twoNames), []agreement{
			{full + pm01, overTLS, ""},
			{full + "host=pm02.test hostaddr=127.0.0.1", refused, "pm02.test"},
		}},
		{"expired", root.issue(expired), []agreement{
			{ca + "host=127.0.0.1", refused, "expired"},
			{"sslmode=require host=127.0.0.1", overTLS, ""},
			{"sslmode=prefer sslrootcert=$/root.crt host=127.0.0.1", plain, ""},
		}},
		{"not yet valid", root.issue(early), []agreement{{ca + "host=127.0.0.1", refused, "not yet valid"}}},
		{"a client's", root.issue(forClients), []agreement{{ca + "host=127.0.0.1", refused, "usage"}}},
		{"for anything", root.issue(forAll), []agreement{{ca + "host=127.0.0.1", refused, "usage"}}},
		{"a server's", root.issue(forServers), []agreement{{full + pm01, overTLS, ""}}},
		{"a stranger's", stranger.named("pm01.test"), []agreement{{full + pm01, refused, "unknown authority"}, {ca + pm01, refused, "unknown authority"}}},
		{"an authority's", leaf{root.certificate, root.pem(), inPEM("PRIVATE KEY", pkcs8(t, root.key))}, []agreement{
			{ca + pm01, refused, "its key usage is not for TLS"},
		}},
		{"its own authority", leaf{own.certificate, own.pem(), inPEM("PRIVATE KEY", pkcs8(t, own.key))}, []agreement{
			{"sslmode=verify-full sslrootcert=$/own.crt " + pm01, overTLS, ""},
			{full + pm01, refused, "unknown authority"},
		}},
		{"revoked", revoked, []agreement{
			{full + pm01, overTLS, ""},
			{full + pm01 + "sslcrl=$/root.crl", refused, "is revoked by"},
			{full + pm01 + "sslcrldir=$/crl-revoking", refused, "is revoked by"},
			{"sslmode=require sslrootcert=$/root.crt sslcrl=$/root.crl " + pm01, refused, "is revoked by"},
			{"sslmode=prefer sslrootcert=$/root.crt sslcrl=$/root.crl " + pm01, plain, ""},
			{"sslmode=require sslcrl=$/root.crl " + pm01, overTLS, ""}, // nothing is verified without a root
			{full + pm01 + "sslcrl=$/clean.crl", overTLS, ""},
			{full + pm01 + "sslcrldir=$/crl-clean", overTLS, ""},
			{full + pm01 + "sslcrl=$/old.crl", refused, "not valid at this time"},
			{full + pm01 + "sslcrl=$/strangers.crl", refused, "have no list of"},
			{full + pm01 + "sslcrl=$/nothing.crl", overTLS, ""},
			{full + pm01 + "sslcrl=$/garbage.crl", overTLS, ""},
			{full + pm01 + "sslcrl=$/garbage.crl sslcrldir=$/crl-revoking", overTLS, ""},
			{full + pm01 + "sslcrl=$/clean.crl sslcrldir=$/nothing", overTLS, ""},
			{full + pm01 + "sslcrldir=$/nothing", refused, "have no list of"},
			{full + pm01 + "sslcrldir=$/crl-none", refused, "have no list of"},
		}},
		{"with what is between", below, []agreement{
			{full + pm01, overTLS, ""},
			{"sslmode=verify-full sslrootcert=$/middle.crt " + pm01, refused, "unknown authority"},
			{full + pm01 + "sslcrl=$/clean.crl", refused, "have no list of"},
			{full + pm01 + "sslcrl=$/both.crl", overTLS, ""},
			{full + pm01 + "sslcrl=$/middle-revokes.crl", refused, "is revoked by"},
		}},
		{"without what is between", middle.issue(nameTemplate("pm01.test")), []agreement{
			{full + pm01, refused, "unknown authority"},
			{"sslmode=verify-full sslrootcert=$/both.crt " + pm01, overTLS, ""},
		}},
		{"at home", common, []agreement{
			{"home=home-root sslmode=verify-full " + pm01, overTLS, ""},
			{"home=home-stranger sslmode=verify-full " + pm01, refused, "unknown authority"},
			{"home=home-stranger sslmode=require " + pm01, refused, "unknown authority"},
			{"home=home-stranger " + pm01, plain, ""},
			{"home=home-stranger sslmode=require sslrootcert=$/root.crt " + pm01, overTLS, ""},
			{"home=home-client sslmode=require user=certified " + pm01, overTLS, ""},
			{"home=home-revoking sslmode=verify-full " + pm01, overTLS, ""},
		}},
		{"revoked at home", revoked, []agreement{
			{"home=home-revoking sslmode=verify-full " + pm01, refused, "is revoked by"},
			{"home=home-revoking sslmode=verify-full sslcrl=$/clean.crl " + pm01, overTLS, ""},
		}},
	} {
		serveTLS(server, fmt.Sprintf("server%d", i), group.server)
		for _, a := range group.all {
			t.Run(group.name+": "+a.conninfo, func(t *testing.T) {
				conninfo := a.conninfo
				known := true // to this libpq
				if rest, ok := strings.CutPrefix(conninfo, "since="); ok {
					known = major >= rest[:2]
					conninfo = rest[3:]
				}
				if rest, ok := strings.CutPrefix(conninfo, "home="); ok {
					home, rest, _ := strings.Cut(rest, " ")
					t.Setenv("HOME", filepath.Join(f.folder, home))
					conninfo = rest
				}
				conninfo = f.fill(server, conninfo)
				libpq, why := a.want, ""
				if known {
					libpq, why = judged(t, conninfo)
				}
				pgrex, says := ours(t, server, conninfo)
				if libpq != a.want || pgrex != a.want {
					t.Errorf("libpq: %s (%s); pgrex: %s (%s); want %s", libpq, why, pgrex, says, a.want)
				}
				if pgrex == refused && !strings.Contains(says, a.says) {
					t.Errorf("pgrex says %s, and not …%s…", says, a.says)
				}
			})
		}
	}
}
