package postgres

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// keywords are the parameters of a connection string, as libpq reads it.
type keywords map[string]string

// environment has every keyword of libpq 15 to 18, with the variable that stands in for it, "" where there is none
// (PostgreSQL documentation, "Parameter Key Words" and "Environment Variables").
var environment = map[string]string{
	"application_name": "PGAPPNAME", "channel_binding": "PGCHANNELBINDING", "client_encoding": "PGCLIENTENCODING",
	"connect_timeout": "PGCONNECT_TIMEOUT", "dbname": "PGDATABASE", "fallback_application_name": "",
	"gssdelegation": "PGGSSDELEGATION", "gssencmode": "PGGSSENCMODE", "gsslib": "PGGSSLIB", "host": "PGHOST",
	"hostaddr": "PGHOSTADDR", "keepalives": "", "keepalives_count": "", "keepalives_idle": "", "keepalives_interval": "",
	"krbsrvname": "PGKRBSRVNAME", "load_balance_hosts": "PGLOADBALANCEHOSTS",
	"max_protocol_version": "PGMAXPROTOCOLVERSION", "min_protocol_version": "PGMINPROTOCOLVERSION",
	"oauth_client_id": "", "oauth_client_secret": "", "oauth_issuer": "", "oauth_scope": "", "options": "PGOPTIONS",
	"passfile": "PGPASSFILE", "password": "PGPASSWORD", "port": "PGPORT", "replication": "", "require_auth": "PGREQUIREAUTH",
	"requirepeer": "PGREQUIREPEER", "scram_client_key": "", "scram_server_key": "", "service": "PGSERVICE",
	"ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION", "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
	"sslcert": "PGSSLCERT", "sslcertmode": "PGSSLCERTMODE", "sslcompression": "PGSSLCOMPRESSION", "sslcrl": "PGSSLCRL",
	"sslcrldir": "PGSSLCRLDIR", "sslkey": "PGSSLKEY", "sslkeylogfile": "", "sslmode": "PGSSLMODE",
	"sslnegotiation": "PGSSLNEGOTIATION", "sslpassword": "", "sslrootcert": "PGSSLROOTCERT", "sslsni": "PGSSLSNI",
	"target_session_attrs": "PGTARGETSESSIONATTRS", "tcp_user_timeout": "", "user": "PGUSER",
}

// secrets are the keywords whose values nobody may see.
var secrets = []string{"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}

var (
	errConninfo = errors.New("primary_conninfo is not understood; its text is withheld, since it may hold a password")
	// errKeyword does not name the keyword: behind a blank that should have been quoted it is part of a password.
	errKeyword = errors.New("primary_conninfo has a keyword that libpq 15 to 18 do not know; its text is withheld, since it may hold a password")
)

// parseConninfo reads a connection string as libpq does (PQconninfoParse). Its errors hold nothing of the text.
func parseConninfo(text string) (keywords, error) {
	parse := parseKeywords
	if isURI(text) {
		parse = parseURI
	}
	k := keywords{}
	if strings.IndexByte(text, 0) >= 0 || !parse(k, text) {
		return nil, errConninfo
	}
	// The old spelling of sslmode, which libpq still takes.
	if old, ok := k["requiressl"]; ok {
		delete(k, "requiressl")
		k["sslmode"] = "prefer"
		if strings.HasPrefix(old, "1") {
			k["sslmode"] = "require"
		}
	}
	for keyword := range k {
		if _, ok := environment[keyword]; !ok {
			return nil, errKeyword
		}
	}
	return k, nil
}

const blanks = " \t\n\v\f\r"

// parseKeywords reads keyword = value pairs. A backslash escapes the next character, in quotes and outside of them. The
// last value of a keyword counts.
func parseKeywords(k keywords, text string) bool {
	for text = strings.TrimLeft(text, blanks); text != ""; text = strings.TrimLeft(text, blanks) {
		keyword, rest, found := strings.Cut(text, "=")
		keyword = strings.TrimRight(keyword, blanks)
		if !found || keyword == "" || strings.ContainsAny(keyword, blanks) {
			return false
		}
		text = strings.TrimLeft(rest, blanks)
		value, length, ok := keywordValue(text)
		if !ok {
			return false
		}
		k[keyword], text = value, text[length:]
	}
	return true
}

// keywordValue returns the value at the beginning of a text, and its length in the text.
func keywordValue(text string) (value string, length int, ok bool) {
	ends, i := blanks, 0
	quoted := strings.HasPrefix(text, "'")
	if quoted {
		ends, i = "'", 1
	}
	var b strings.Builder
	for ; i < len(text); i++ {
		switch c := text[i]; {
		case strings.IndexByte(ends, c) >= 0:
			return b.String(), i + 1, true
		case c == '\\': // at the very end it stands for nothing
			if i++; i < len(text) {
				b.WriteByte(text[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), len(text), !quoted
}

func isURI(conninfo string) bool {
	return strings.HasPrefix(conninfo, "postgres://") || strings.HasPrefix(conninfo, "postgresql://")
}

// parseURI reads postgresql://user:password@host:port,host:port/dbname?keyword=value&…, where each part may be left
// out.
func parseURI(k keywords, text string) bool {
	_, text, _ = strings.Cut(text, "://")
	ok := true
	set := func(keyword, value string) {
		decoded, fine := uriDecode(value)
		k[keyword], ok = decoded, ok && fine
	}
	if i := strings.IndexAny(text, "@/"); i >= 0 && text[i] == '@' {
		user, password, _ := strings.Cut(text[:i], ":")
		text = text[i+1:]
		if user != "" {
			set("user", user)
		}
		if password != "" {
			set("password", password)
		}
	}
	hosts, ports, text, understood := uriHosts(text)
	if hosts != "" {
		set("host", hosts)
	}
	if ports != "" {
		set("port", ports)
	}
	path, query, _ := strings.Cut(text, "?")
	if database := strings.TrimPrefix(path, "/"); database != "" {
		set("dbname", database)
	}
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		keyword, value, found := strings.Cut(pair, "=")
		keyword, fine := uriDecode(keyword)
		ok = ok && found && fine && !strings.Contains(value, "=")
		if keyword == "ssl" && value == "true" { // as JDBC has it
			keyword, value = "sslmode", "require"
		}
		set(keyword, value)
	}
	return ok && understood
}

// uriHosts reads the hosts and ports of a URI, as lists of the same length. An IPv6 address stands in brackets.
func uriHosts(text string) (hosts, ports, rest string, ok bool) {
	for {
		if bracketed, found := strings.CutPrefix(text, "["); found {
			end := strings.IndexByte(bracketed, ']')
			if end <= 0 {
				return "", "", "", false
			}
			hosts, text = hosts+bracketed[:end], bracketed[end+1:]
			if text != "" && !strings.ContainsRune(":/?,", rune(text[0])) {
				return "", "", "", false
			}
		} else {
			end := until(text, ":/?,")
			hosts, text = hosts+text[:end], text[end:]
		}
		if strings.HasPrefix(text, ":") {
			end := until(text[1:], "/?,")
			ports, text = ports+text[1:end+1], text[end+1:]
		}
		if !strings.HasPrefix(text, ",") {
			return hosts, ports, text, true
		}
		hosts, ports, text = hosts+",", ports+",", text[1:]
	}
}

// until returns the index of the first of some characters in a text, or the text's length.
func until(text, characters string) int {
	if i := strings.IndexAny(text, characters); i >= 0 {
		return i
	}
	return len(text)
}

// uriDecode decodes percent-encoding. It is stricter than package net/url, and as strict as libpq.
func uriDecode(text string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			b.WriteByte(text[i])
			continue
		}
		if i+2 >= len(text) {
			return "", false
		}
		c, err := strconv.ParseUint(text[i+1:i+3], 16, 8)
		if err != nil || c == 0 {
			return "", false
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), true
}

// String writes the pairs as a connection string, in a fixed order.
func (k keywords) String() string {
	var pairs []string
	for _, keyword := range slices.Sorted(maps.Keys(k)) {
		pairs = append(pairs, keyword+"="+keywordText(k[keyword]))
	}
	return strings.Join(pairs, " ")
}

// keywordText returns a value as it is written in a connection string, quoted if necessary.
func keywordText(value string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-.,:/@+", r)
	}
	if value != "" && strings.TrimFunc(value, plain) == "" {
		return value
	}
	return quoteKeyword(value)
}

// refusal is why pgrex does not connect by a connection string: a keyword is wrong, or pgrex does not support it.
type refusal struct {
	keyword, why string
}

func (r refusal) Error() string { return r.keyword + " in primary_conninfo " + r.why }

func refuse(keyword, format string, args ...any) error {
	return refusal{keyword, fmt.Sprintf(format, args...)}
}
