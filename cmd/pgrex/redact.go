package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// hidden stands where a secret was.
const hidden = "***"

// secretName is how the names of secrets are told.
//
//nolint:gosec // a pattern, no credential
const secretName = `[\w.-]*(?i:passw(?:or)?d|passphrase|passwd|pwd|secret|token|credential|api_?key|access_?key|private_?key)[\w.-]*`

// quotedValue is a value in quotes: doubled as in SQL within SQL, behind backslashes as in a quoted line, or plain.
const quotedValue = `(?:''[^']*''|\\+["'][^"']*["']|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')`

// secrets are the ways in which a text may hold one. The first group stays.
var secrets = []*regexp.Regexp{
	regexp.MustCompile(`((?m)^\s*(?:SetCredential|SetCredentialEncrypted)=)(?:.*\\\n)*.*`), // systemd's
	// name=value, name: value, --name value; of a value without quotes everything up to a blank or quote
	regexp.MustCompile(`(` + secretName + `\\*["']?\s*[=:]\s*)(?:` + quotedValue + `|[^\s"']+)`),
	regexp.MustCompile(`(--?` + secretName + `\s+)(?:` + quotedValue + `|[^\s"']+)`),
	regexp.MustCompile(`(` + secretName + `\s+)` + quotedValue),                                // SQL's PASSWORD 'value'
	regexp.MustCompile(`(name="` + secretName + `"[^>]*\bvalue=)(?:"[^"]*"|'[^']*')`),          // a CIB's nvpair
	regexp.MustCompile(`(\w://[^\s/@:]*:)\S*@`),                                                // scheme://user:value@host
	regexp.MustCompile(`((?i:bearer|basic)\s+)[\w.~+/=-]{6,}`),                                 // Authorization: Bearer value
	regexp.MustCompile(`((?m)^[^\s:#]+:(?:\d{1,5}|\*):[^\s:]+:[^\s:]+:)\S+`),                   // a line of a password file
	regexp.MustCompile(`(-----BEGIN [A-Z ]*PRIVATE KEY-----)[\s\S]*?-----END [A-Z ]*KEY-----`), // PEM
}

// environment matches a unit's line that sets variables; variable and quotedVariable match one of these. Every value is
// hidden, except those of plainVariables.
var (
	environment    = regexp.MustCompile(`(?m)^\s*Environment=(?:.*\\\n)*.*$`)
	variable       = regexp.MustCompile(`["']?(\w+)=(?:\\.|[^"'\s\\]|"[^"]*"|'[^']*')*`)
	quotedVariable = regexp.MustCompile(`"(\w+)=(?:\\.|[^"\\])*"|'(\w+)=[^']*'`)
	plainVariables = []string{"PATH", "TZ", "LANG", "LC_ALL", "CIB_file", "GODEBUG", "GOMEMLIMIT", "GOTRACEBACK"}
)

// redact is a text without what looks like a secret.
func redact(text string) string {
	text = environment.ReplaceAllStringFunc(text, func(line string) string {
		head, variables, _ := strings.Cut(line, "=")
		for _, form := range []*regexp.Regexp{quotedVariable, variable} {
			variables = form.ReplaceAllStringFunc(variables, redactVariable)
		}
		return head + "=" + variables
	})
	for _, secret := range secrets {
		text = secret.ReplaceAllString(text, "${1}"+hidden)
	}
	return text
}

func redactVariable(assignment string) string {
	name, _, _ := strings.Cut(strings.TrimLeft(assignment, `"'`), "=")
	if slices.Contains(plainVariables, name) {
		return assignment
	}
	return name + "=" + hidden
}

// redactJSON returns a JSON document with everything hidden that looks like a secret, by its key or in its text. Anything
// that is not JSON is redacted as plain text.
func redactJSON(text string) string {
	var document any
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&document); err != nil {
		return redact(text)
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(redactIn(document)); err != nil {
		return redact(text)
	}
	return b.String()
}

var secretKey = regexp.MustCompile(`^` + secretName + `$`)

func redactIn(v any) any {
	switch v := v.(type) {
	case string:
		return redact(v)
	case []any:
		for i := range v {
			v[i] = redactIn(v[i])
		}
	case map[string]any:
		for key, of := range v {
			if text, ok := of.(string); ok && text != "" && secretKey.MatchString(key) {
				v[key] = hidden
			} else {
				v[key] = redactIn(of)
			}
		}
	}
	return v
}
