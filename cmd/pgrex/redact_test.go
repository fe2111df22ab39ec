package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestRedact: a secret is hidden in every form that it may have on a host.
func TestRedact(t *testing.T) {
	for _, text := range []string{
		`primary_conninfo = 'host=pm01 user=repl password=geheim application_name=pm02'`,
		`primary_conninfo = 'host=pm01 password=''geheim wort'' user=repl'`,
		`host=pm01 password='geheim \' wort' user=repl`,
		`host=pm01 password = geheim`,
		`text="cannot connect: \"host=pm01 password=geheim\"" code=x`,
		`text="cannot connect: password=\"geheim wort\"" code=x`,
		`postgres://repl:geheim@pm01:5432/postgres`,
		`postgres://repl:ge@hei:m@pm01/postgres`,
		`postgres://pm01/postgres?sslmode=require&password=geheim&user=repl`,
		`{"restore_command": "AWS_SECRET_ACCESS_KEY=geheim aws s3 cp s3://b/%f %p"}`,
		`{"monitor_password": "geheim wort", "user": "repl"}`,
		`[{"a": ["--token geheim"]}]`,
		`"apiToken" : 'geheim wort'`,
		`ALTER ROLE repl WITH PASSWORD 'geheim wort';`,
		`ExecStart=/usr/bin/pgrex run --db-password geheim --node pm01`,
		`ExecStartPre=/bin/sh -c "curl -H 'Authorization: Bearer geheim-geheim' https://pm01"`,
		"Environment=PGPASSWORD=geheim PGUSER=repl",
		"Environment=\"DSN=host=a geheim wort\" CIB_file=/a",
		"Environment='X=geheim wort'",
		"Environment=A=geheim \\\n  B=geheim",
		"SetCredential=db:geheim wort",
		"SetCredential=db:\\\n geheim",
		`<nvpair id="f-p" name="passwd" value="geheim wort"/>`,
		`<nvpair id="f-p" name="ipmi_password" id-ref="x" value='geheim'/>`,
		"pm01:5432:replication:repl:geheim",
		"*:*:*:repl:geheim",
		"-----BEGIN RSA PRIVATE KEY-----\ngeheim\ngeheim\n-----END RSA PRIVATE KEY-----",
		`pwd: geheim`,
		`# the password: geheim`,
	} {
		for _, got := range []string{redact(text), redactJSON(text)} {
			if strings.Contains(got, "geheim") || strings.Contains(got, "wort") {
				t.Errorf("%s\nbecomes\n%s", text, got)
			}
		}
	}
}

// TestRedactKeeps: what is no secret stays, so that the text still helps.
func TestRedactKeeps(t *testing.T) {
	for _, text := range []string{
		"ask the primary pm01, with the password of primary_conninfo or its passfile, by the upstream's pg_hba.conf",
		"12:34:56.789 slot pgrex_pm01 at 0/3000420",
		"Environment=PATH=/usr/sbin:/usr/bin CIB_file=/tmp/cib.xml TZ=UTC",
		"ExecStart=/usr/bin/pgrex run --node pm01",
		`{"code":"PasswordsDiffer","pgrex_snapshot":1,"size":12345678901234567890}`,
		"https://github.com/pgrex/pgrex",
		"host=pm01 port=5432 passfile=/var/lib/pgsql/.pgpass",
	} {
		if got := redact(text); got != text {
			t.Errorf("%s\nbecomes\n%s", text, got)
		}
	}
	document := `{"number":12345678901234567890,"lsn":"0/3000420","none":null}`
	var got, want map[string]any
	if err := json.Unmarshal([]byte(redactJSON(document)), &got); err != nil {
		t.Fatal(err)
	}
	_ = json.Unmarshal([]byte(document), &want)
	if len(got) != len(want) || got["lsn"] != want["lsn"] || !strings.Contains(redactJSON(document), "12345678901234567890") {
		t.Errorf("%s becomes %v", document, got)
	}
}
