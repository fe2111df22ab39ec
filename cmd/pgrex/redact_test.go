package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// planted are the words of the secrets below; none of them may be left.
var planted = []string{"geheim", "wort", "planted"}

func wantHidden(t *testing.T, what, text, got string) {
	t.Helper()
	for _, word := range planted {
		if strings.Contains(got, word) {
			t.Errorf("%s: %s\nbecomes\n%s", what, text, got)
			return
		}
	}
}

// TestRedact: a secret is hidden in every form that it may have on a host.
func TestRedact(t *testing.T) {
	for _, text := range []string{
		`primary_conninfo = 'host=pm01 user=repl password=geheim application_name=pm02'`,
		`primary_conninfo = 'host=pm01 password=''geheim wort'' user=repl'`,
		`password=''ge''''heim wort''`,
		`host=pm01 password='geheim \' wort' user=repl`,
		`host=pm01 password=ge\ heimgeheim\ wort user=repl`,
		`host=pm01 password=x'geheim' user=repl`,
		`'host=x password=ge''geheim'`,
		`host=pm01 password = geheim`,
		`primary_conninfo = 'host=pm01 password=ge\\ geheim sslpassword=''geheim wort'''`,
		`host=pm01 sslpassword=ge\'geheim oauth_client_secret='geheim wort' scram_server_key=geheim`,
		`postgresql://pm01/?sslpassword=geheim&oauth_client_secret=geheim`,
		`text="cannot connect: \"host=pm01 password=geheim\"" code=x`,
		`text="cannot connect: password=\"geheim wort\"" code=x`,
		`text="cannot connect: \"password='geheim wort' host=x\""`,
		`postgres://repl:geheim@pm01:5432/postgres`,
		`postgres://repl:ge@hei:geheim@pm01/postgres`,
		`https://geheim@host/path`,
		`postgres://pm01/postgres?sslmode=require&password=geheim&user=repl`,
		`{"restore_command": "AWS_SECRET_ACCESS_KEY=geheim aws s3 cp s3://b/%f %p"}`,
		`{"monitor_password": "geheim wort", "user": "repl"}`,
		`[{"a": ["--token geheim"]}]`,
		`"apiToken" : 'geheim wort'`,
		`ALTER ROLE repl WITH PASSWORD 'geheim wort';`,
		`ALTER ROLE repl PASSWORD 'it''s geheim';`,
		`ALTER ROLE repl PASSWORD E'it\'s geheim';`,
		`ALTER ROLE repl PASSWORD $$geheim wort$$;`,
		`ALTER ROLE repl PASSWORD $a$geheim wort$a$;`,
		`password => 'geheim wort'`,
		`password := 'geheim wort'`,
		`pgrex run --db-password geheim --node pm01`,
		`curl -u user:geheim https://host`,
		`curl --user user:geheim https://host`,
		`sshpass -p geheim ssh host`,
		`PGPASS=geheim DB_PASS=geheim RESTIC_KEY=geheim`,
		`PGPASSWORD="ge"geheim`,
		`PGPASSWORD=ge'geheim wort'`,
		`scram_client_key=geheim private-key=geheim api-key: geheim`,
		`Authorization: Bearer geheim-geheim`,
		`Authorization: token geheim-geheim`,
		`X-Amz-Signature=geheim&x`,
		`<nvpair id="f-p" name="passwd" value="geheim wort"/>`,
		`<nvpair value="geheim wort" name="passwd" id="f-p"/>`,
		`<nvpair id='f-p' name='ipmi_password' value='geheim'/>`,
		"pm01:5432:replication:repl:geheim wort",
		"*:*:*:repl:geheim",
		`  fe80\:\:1:5432:postgres:repl:geheim`,
		"-----BEGIN RSA PRIVATE KEY-----\ngeheim\ngeheim\n-----END RSA PRIVATE KEY-----",
		"-----BEGIN PGP PRIVATE KEY BLOCK-----\ngeheim\n",
		`pwd: geheim`,
		`# the password: geheim`,
	} {
		wantHidden(t, "as text", text, redact(text))
		wantHidden(t, "as JSON", text, redactJSON(text))
		document, err := json.Marshal(map[string]any{"text": []string{text}})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(text, "-----") && !strings.Contains(text, ":5432:") && !strings.HasPrefix(text, "*:") { // lines of files
			wantHidden(t, "within JSON", text, redactJSON(string(document)))
		}
	}
	for _, text := range []string{
		`{"parameters": {"password": 12345, "token": ["geheim"], "a": {"secret": {"b": "geheim"}}}}`,
		`{"meta": {"api-key": "geheim"}, "text": "x"} {"token": "geheim"}`,
	} {
		wantHidden(t, "as JSON", text, strings.ReplaceAll(redactJSON(text), "12345", "geheim"))
	}
}

// TestRedactKeeps: what is no secret stays, so that the text still helps.
func TestRedactKeeps(t *testing.T) {
	for _, text := range []string{
		"ask the primary pm01, with the password of primary_conninfo or its passfile, by the upstream's pg_hba.conf",
		"12:34:56.789 slot pgrex_pm01 at 0/3000420",
		"https://github.com/pgrex/pgrex",
		"2001:500:88:200::10",
		"2026-11-29T20:00:00.123456+00:00 pm01 pgrex[1]: msg=\"pgrex starts\"",
		"which token:\npg-port: 5433",
	} {
		if got := redact(text); got != text {
			t.Errorf("%s\nbecomes\n%s", text, got)
		}
	}
	document := `{
  "address": "2001:500:88:200::10",
  "attributes": {
    "pgrex-forecast": "pwdb01=rewind,token-ring=stream"
  },
  "number": 12345678901234567890,
  "roles": {
    "pwdb01": "promoted",
    "token-ring": "unpromoted"
  }
}
`
	if got := strings.ReplaceAll(redactJSON(document), "***", "rewind,token-ring=stream"); got != document {
		t.Errorf("%s\nbecomes\n%s", document, got)
	}
}

// TestRedactUnit: of a unit nothing stays that may hold a secret, however it is written.
func TestRedactUnit(t *testing.T) {
	text := `# /usr/lib/systemd/system/pgrex.service
[Service]
ExecStart=/usr/bin/pgrex run --node pm01
User=postgres
# /etc/systemd/system/pgrex.service.d/site.conf
[Service]
# planted
Environment=PGPASSWORD=planted PLAIN=planted
Environment = X=planted
Environment="MY.VAR=planted wort" 'Y=planted'
Environment=A=planted \
# planted
  PLAIN=planted
SetCredential=db:planted wort
SetCredential = db:\
 planted
SetCredentialEncrypted=db: planted
ExecStartPre=-/bin/sh -c 'curl -u u:planted https://pm01'
; planted
ExecStartPost=/usr/bin/pgrex status
Environment=Z=planted`
	got := redactUnit(text)
	wantHidden(t, "as a unit", text, got)
	for _, want := range []string{"# /usr/lib/systemd/system/pgrex.service", "# /etc/systemd/system/pgrex.service.d/site.conf",
		"ExecStart=/usr/bin/pgrex run --node pm01", "User=postgres", "ExecStartPre=-/bin/sh ***", "ExecStartPost=/usr/bin/pgrex status"} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("it lacks %s:\n%s", want, got)
		}
	}
}

func TestRedactSettings(t *testing.T) {
	got := redactSettings("# planted\nnode: pm01\nno-such-key: planted\n  log-level: debug\npg-user: \"x password=planted\"\nplanted\n")
	wantHidden(t, "as settings", "", got)
	if !strings.Contains(got, "node: pm01\n") || !strings.Contains(got, "log-level: debug\n") {
		t.Errorf("it lacks what is no secret:\n%s", got)
	}
}

// TestRedactLarge: of a large journal each line is looked at.
func TestRedactLarge(t *testing.T) {
	plain := `2026-11-29T20:00:00 pm01 pgrex[1]: msg="step done" step=AdvanceSlot text="slot pgrex_pm03 for pm03"` + "\n"
	const secret = "cannot connect: password=geheim\n"
	text := strings.Repeat(strings.Repeat(plain, 100)+secret, 100)
	got := redact(text)
	if want := strings.ReplaceAll(text, "geheim", hidden); got != want {
		t.Errorf("%d bytes, not %d, or others", len(got), len(want))
	}
}

func FuzzRedact(f *testing.F) {
	f.Add(`password='a\' b'' c' x=$a$b$a$ "\\"`)
	f.Fuzz(func(_ *testing.T, text string) {
		redact(text)
		redactJSON(text)
		redactUnit(text)
		redactSettings(text)
	})
}
