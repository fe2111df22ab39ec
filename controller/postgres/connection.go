package postgres

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgpassfile"
	"github.com/jackc/pgservicefile"
	"github.com/jackc/pgx/v5/pgconn"
)

// connection is what a connection string asks for, with all that libpq adds to it: from a service file, from the
// environment,
// and its defaults. What it asks for is done as libpq does it, or refused.
type connection struct {
	keywords  keywords // all of them
	given     keywords // those of the connection string itself
	service   keywords // those of the service file
	endpoints []endpoint

	// patient, if not nil, replaces the caller's context for the last attempt: it is a lane's, without a deadline. gate,
	// if not nil, wraps the function that dials.
	patient context.Context
	gate    func(pgconn.DialFunc) pgconn.DialFunc
}

// The values of sslmode, and the special values of other keywords.
const (
	sslDisable    = "disable"
	sslAllow      = "allow"
	sslPrefer     = "prefer"
	sslRequire    = "require"
	sslVerifyCA   = "verify-ca"
	sslVerifyFull = "verify-full"
	systemRoots   = "system" // sslrootcert
	directTLS     = "direct" // sslnegotiation
)

// choices are the keywords with a fixed set of values.
var choices = map[string][]string{
	"channel_binding":      {"disable", "prefer", "require"},
	"gssencmode":           {"disable", "prefer", "require"},
	"load_balance_hosts":   {"disable", "random"},
	"sslcertmode":          {"disable", "allow", "require"},
	"sslmode":              {sslDisable, sslAllow, sslPrefer, sslRequire, sslVerifyCA, sslVerifyFull},
	"sslnegotiation":       {"postgres", directTLS},
	"target_session_attrs": {"any", "read-write", "read-only", "primary", "standby", "prefer-standby"},
}

// handedOn are the keywords that pgconn honours as libpq does.
var handedOn = []string{"channel_binding", "max_protocol_version", "min_protocol_version", "require_auth", "sslcertmode", "sslnegotiation"}

// readConninfo returns what a connection string asks for, with what libpq adds to it.
func readConninfo(conninfo string) (*connection, error) {
	if conninfo == "" {
		return nil, errors.New("primary_conninfo is empty")
	}
	given, err := parseConninfo(conninfo)
	if err != nil {
		return nil, err
	}
	c := &connection{given: given}
	if c.service, err = serviceOf(given); err != nil {
		return nil, err
	}
	surroundings := keywords{}
	for keyword, variable := range environment {
		if value, ok := os.LookupEnv(variable); ok && variable != "" {
			surroundings[keyword] = value
		}
	}
	c.keywords = given.with(c.service).with(surroundings)
	mode := sslPrefer
	switch {
	case c.keywords["sslrootcert"] == systemRoots:
		mode = sslVerifyFull
	case strings.HasPrefix(os.Getenv("PGREQUIRESSL"), "1"):
		mode = sslRequire
	}
	c.keywords = c.keywords.with(keywords{"sslmode": mode, "sslsni": "1", "ssl_min_protocol_version": "TLSv1.2"})
	if err := c.check(); err != nil {
		return nil, err
	}
	c.endpoints, err = c.listed()
	return c, err
}

// with returns a copy of k, with those of more that k does not have.
func (k keywords) with(more keywords) keywords {
	all := keywords{}
	maps.Copy(all, more)
	maps.Copy(all, k)
	return all
}

// serviceOf returns the settings of the service that a connection string, or the environment, names; nil if neither
// does (PostgreSQL documentation, "The Connection Service File").
func serviceOf(given keywords) (keywords, error) {
	name, ok := given["service"]
	if !ok {
		if name, ok = os.LookupEnv(environment["service"]); !ok {
			return nil, nil
		}
	}
	file := os.Getenv("PGSERVICEFILE")
	if file == "" {
		file = filepath.Join(home(), ".pg_service.conf")
	}
	services, err := pgservicefile.ReadServicefile(file)
	if err != nil {
		return nil, refuse("service", "cannot be followed: the service file %s cannot be read", file)
	}
	service, err := services.GetService(name)
	if err != nil {
		return nil, refuse("service", "cannot be followed: %s does not have it, and pgrex reads no service file of the whole system", file)
	}
	for keyword := range service.Settings {
		if _, ok := environment[keyword]; !ok || keyword == "service" {
			return nil, refuse("service", "cannot be followed: in %s it has a keyword that libpq 15 to 18 do not know", file)
		}
	}
	return service.Settings, nil
}

// home returns the folder in which libpq looks for its files, "" if there is none.
func home() string {
	folder, _ := os.UserHomeDir() // "" then
	if me, err := user.Current(); folder == "" && err == nil {
		folder = me.HomeDir
	}
	return folder
}

// check returns an error for what libpq refuses, and for what pgrex does not support.
func (c *connection) check() error {
	for _, keyword := range slices.Sorted(maps.Keys(choices)) {
		if value, ok := c.keywords[keyword]; ok && !slices.Contains(choices[keyword], value) {
			return refuse(keyword, "is none of %s", strings.Join(choices[keyword], ", "))
		}
	}
	for _, keyword := range handedOn {
		if _, err := c.handOn(keyword); err != nil {
			return refuse(keyword, "has a value that libpq does not take")
		}
	}
	if _, err := c.handOn(handedOn...); err != nil {
		return refuse("min_protocol_version", "is higher than max_protocol_version")
	}
	weak := slices.Contains([]string{sslDisable, sslAllow, sslPrefer}, c.keywords["sslmode"])
	switch {
	case c.keywords["gssencmode"] == "require":
		return refuse("gssencmode", "asks for encryption with GSSAPI: pgrex cannot follow it; use TLS (sslmode)")
	case c.keywords["scram_client_key"] != "":
		return refuse("scram_client_key", "stands for a password: pgrex cannot follow it; use a password or a passfile")
	case c.keywords["scram_server_key"] != "":
		return refuse("scram_server_key", "stands for a password: pgrex cannot follow it; use a password or a passfile")
	case c.keywords["sslrootcert"] == systemRoots && c.keywords["sslmode"] != sslVerifyFull:
		return refuse("sslmode", "is weaker than verify-full, which sslrootcert=system demands")
	case c.keywords["sslnegotiation"] == directTLS && weak:
		return refuse("sslmode", "is weaker than require, which sslnegotiation=direct demands")
	}
	_, _, err := c.tlsVersions()
	return err
}

// handOn returns a configuration for pgconn in which only the named keywords count. The rest has fixed values: pgconn
// would take it from the environment, which it reads in its own way.
func (c *connection) handOn(names ...string) (*pgconn.Config, error) {
	rest := keywords{
		"host": "/", "port": "1", "user": "nobody", "password": "none", "dbname": "none", "sslmode": sslDisable, "connect_timeout": "0",
		"target_session_attrs": "any", "sslcertmode": "allow", "channel_binding": sslPrefer, "require_auth": "", "sslnegotiation": "postgres",
	}
	return pgconn.ParseConfig(c.keywords.only(append(names, "service")...).with(rest).String())
}

// only returns the named keywords, as far as they are set.
func (k keywords) only(names ...string) keywords {
	some := keywords{}
	for _, name := range names {
		if value, ok := k[name]; ok {
			some[name] = value
		}
	}
	return some
}

// versions are the TLS versions that libpq knows, in lower case.
var versions = map[string]uint16{
	"tlsv1": tls.VersionTLS10, "tlsv1.1": tls.VersionTLS11, "tlsv1.2": tls.VersionTLS12, "tlsv1.3": tls.VersionTLS13,
}

// tlsVersions returns the lowest and the highest version of TLS to accept. The lowest is TLS 1.2 by default, as in most
// builds of OpenSSL.
func (c *connection) tlsVersions() (lowest, highest uint16, err error) {
	lowest, highest = tls.VersionTLS12, tls.VersionTLS13
	for keyword, version := range map[string]*uint16{"ssl_min_protocol_version": &lowest, "ssl_max_protocol_version": &highest} {
		value := c.keywords[keyword]
		if value == "" {
			continue
		}
		known := versions[strings.ToLower(value)]
		if known == 0 {
			return 0, 0, refuse(keyword, "is none of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3")
		}
		*version = known
	}
	if lowest > highest {
		return 0, 0, refuse("ssl_min_protocol_version", "is higher than ssl_max_protocol_version")
	}
	return lowest, highest, nil
}

// file returns the path that a keyword names, or else the one where libpq looks; "" if there is no home.
func (c *connection) file(keyword, standard string) (string, error) {
	path := c.keywords[keyword]
	if folder := home(); path == "" && folder != "" {
		path = filepath.Join(folder, standard)
	}
	if path != "" && !filepath.IsAbs(path) {
		return "", refuse(keyword, "is a relative path, which PostgreSQL takes from its data folder: pgrex cannot follow it; write the whole path")
	}
	return path, nil
}

// user returns the user to connect as.
func (c *connection) user() string {
	if name := c.keywords["user"]; name != "" {
		return name
	}
	if me, err := user.Current(); err == nil {
		return me.Username
	}
	return ""
}

// password returns the password for one server: the connection string's, or else the passfile's. Like libpq, it ignores
// a passfile that others than its owner may access.
func (c *connection) password(e endpoint, database string) (string, error) {
	if password := c.keywords["password"]; password != "" {
		return password, nil
	}
	path, err := c.file("passfile", ".pgpass")
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return "", nil //nolint:nilerr // as if there were none
	}
	all, err := pgpassfile.ReadPassfile(path)
	if err != nil {
		return "", nil //nolint:nilerr // the same
	}
	host := cmp.Or(e.host, e.address)
	if host == "" || host == standardSocket() {
		host = "localhost"
	}
	return all.FindPassword(host, strconv.Itoa(int(e.port)), database, c.user()), nil
}

// applicationNameIn returns the application_name of a connection string, "" if that has none or cannot be parsed. The
// environment does not count: it is not the server's.
func applicationNameIn(conninfo string) string {
	const keyword = "application_name"
	given, err := parseConninfo(conninfo)
	if err != nil {
		return ""
	}
	service, _ := serviceOf(given) // where it cannot be read it says nothing
	return given.with(service)[keyword]
}

// at returns the connection to another server, at its own address, with the same credentials and port. Its certificate
// must be for the name in the connection string, as after a failover to it.
func (c *connection) at(ctx context.Context, address string) (*connection, error) {
	other := *c
	var fitting []endpoint
	for _, e := range c.endpoints {
		if len(c.endpoints) == 1 || e.leadsTo(ctx, address) {
			fitting = append(fitting, e)
		}
	}
	first := c.endpoints[0]
	samePort := !slices.ContainsFunc(c.endpoints, func(e endpoint) bool { return e.port != first.port })
	if len(fitting) == 0 && samePort && c.keywords["sslmode"] != sslVerifyFull {
		fitting = append(fitting, first) // all that the name is for is a passfile
	}
	if len(fitting) == 0 {
		return nil, refuse("host", "names several servers, and none of them is at %s: pgrex cannot tell that one's port and name", address)
	}
	other.endpoints = []endpoint{{host: fitting[0].host, address: address, port: fitting[0].port}}
	return &other, nil
}
