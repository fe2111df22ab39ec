package main

import (
	"encoding/json"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/pgrex/pgrex/model"
)

// hidden stands where a secret was.
const hidden = "***"

// secretWord is what the names of secrets have in them. That hides too much rather than too little.
var secretWord = regexp.MustCompile(`(?i)pass(?:w(?:or)?d|phrase|wd)?|pwd|secret|token|credential|auth|signature|` +
	`[-_.](?:key|sig)|(?:api|access|private|shared)[-_.]?key`)

// forms are secrets that are known by their form. The first group stays.
var forms = []*regexp.Regexp{
	regexp.MustCompile(`(\w://)\S*@`), // scheme://user:value@host
	regexp.MustCompile(`((?:^|\s)(?:-u|--user|sshpass -p)[ =]?)\S+`),
	regexp.MustCompile(`((?i:\b(?:bearer|basic|token)) )[\w.~+/=-]{6,}`), // Authorization: Bearer value
	regexp.MustCompile(`()\b(?:eyJ[\w-]+\.[\w-]+\.[\w-]*|gh[a-z]_\w{20,}|AKIA\w{12,}|SCRAM-SHA-256\$\S+|md5[0-9a-f]{32})`),
}

// nvpair is one of the CIB's, with a name and a value in any order.
var (
	nvpair      = regexp.MustCompile(`<nvpair\b[^>]*>`)
	nvpairValue = regexp.MustCompile(`(\bvalue=)(?:"[^"]*"|'[^']*')`)
)

var (
	privateKey = regexp.MustCompile(`(?s)(-----BEGIN [A-Z ]*PRIVATE KEY[A-Z ]*-----).*?(?:-----END [A-Z ]*-----|$)`)
	// passfile is a line of a password file: everything after the fourth colon that no backslash escapes.
	passfile = regexp.MustCompile(`^(\s*(?:\\.|[^\s:\\])+:(?:\d{1,5}|\*):(?:\\.|[^\s:\\])+:(?:\\.|[^\s:\\])+:).+`)
)

// redact returns a text with everything hidden that looks like a secret.
func redact(text string) string {
	var b strings.Builder
	for line := range strings.Lines(privateKey.ReplaceAllString(text, "${1}"+hidden)) {
		content := strings.TrimRight(line, "\n")
		if _, err := netip.ParseAddr(strings.TrimSpace(content)); err != nil {
			content = passfile.ReplaceAllString(content, "${1}"+hidden)
		}
		b.WriteString(redactLine(content))
		b.WriteString(line[len(strings.TrimRight(line, "\n")):])
	}
	return b.String()
}

// hints are what a line has in lower case if anything of it is to be hidden. Most lines of a journal have nothing of
// that.
var hints = []string{"pass", "pwd", "secret", "token", "credential", "auth", "sig", "key", "://", "-u", "bearer", "basic",
	"eyj", "gh", "akia", "scram", "md5"}

// redactLine hides the value behind each name that has a secret's word in it, and what has a secret's form.
func redactLine(line string) string {
	lower := strings.ToLower(line)
	if !slices.ContainsFunc(hints, func(hint string) bool { return strings.Contains(lower, hint) }) {
		return line
	}
	for _, form := range forms {
		line = form.ReplaceAllString(line, "${1}"+hidden)
	}
	line = nvpair.ReplaceAllStringFunc(line, func(tag string) string {
		if secretWord.MatchString(tag) {
			return nvpairValue.ReplaceAllString(tag, "${1}"+hidden)
		}
		return tag
	})
	var b strings.Builder
	for {
		at := secretWord.FindStringIndex(line)
		if at == nil {
			break
		}
		name := at[1] + len(line[at[1]:]) - len(strings.TrimLeftFunc(line[at[1]:], inName))
		value := name + separator(line[name:], isOption(line, at[0]))
		b.WriteString(line[:value])
		if n := valueLength(line[value:]); value > name && n > 0 {
			b.WriteString(hidden)
			value += n
		}
		line = line[value:]
	}
	return b.String() + line
}

func inName(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-.", r)
}

// isOption reports whether the name around a place begins with a dash: its value may follow after a blank.
func isOption(line string, at int) bool {
	begin := strings.TrimRightFunc(line[:at], inName)
	return strings.HasPrefix(line[len(begin):], "-")
}

// separatorForm is what stands between a name and its value: a sign, or a blank where the value is quoted, as in SQL.
var (
	separatorForm = regexp.MustCompile(`^\\*["']?[ \t]*(?:=>|:=|=|:)[ \t]*|^[ \t]+(?:[EeUu]?'|\$\w*\$)`)
	blanks        = regexp.MustCompile(`^[ \t]+`)
)

// separator is how long the separator is at the beginning of a text; 0 where there is none.
func separator(text string, option bool) int {
	if at := separatorForm.FindStringIndex(text); at != nil {
		if found := text[:at[1]]; strings.TrimSpace(found) == "" || !strings.ContainsAny(found, "=:") {
			return len(blanks.FindString(text)) // the quote is the value's
		}
		return at[1]
	}
	if option {
		return len(blanks.FindString(text))
	}
	return 0
}

// valueLength is how long the value at the beginning of a text is: up to a blank, but for those in quotes or behind a
// backslash. Quotes may themselves be quoted, by backslashes or by doubling, and parts may be joined.
func valueLength(text string) int {
	i := 0
	for i < len(text) && text[i] != ' ' && text[i] != '\t' {
		quote := len(text[i:]) - len(strings.TrimLeft(text[i:], `\`))
		switch c := at(text, i+quote); {
		case c == '"' || c == '\'':
			mark := text[i : i+quote+1]
			if at(text, i+quote+1) == c && quote == 0 && strings.Contains(text[i+2:], mark+mark) { // ''value''
				mark += mark
			}
			end := closing(text[i+len(mark):], mark)
			i += len(mark) + end
		case c == '$' && strings.HasPrefix(text[i:], "$"): // $tag$value$tag$
			tag := text[i : i+1+strings.IndexByte(text[i+1:]+"$", '$')]
			i += len(tag) + 1
			if end := strings.Index(text[min(i, len(text)):], tag+"$"); end >= 0 {
				i += end + len(tag) + 1
			}
		case quote > 0: // a backslash and what it escapes
			i += quote + 1
		default:
			i++
		}
	}
	return min(i, len(text))
}

func at(text string, i int) byte {
	if i < len(text) {
		return text[i]
	}
	return 0
}

// closing is where the text behind the closing mark begins; a mark that is doubled, or behind a backslash, is none.
func closing(text, mark string) int {
	for i := 0; i < len(text); i++ {
		switch {
		case strings.HasPrefix(text[i:], mark) && strings.HasPrefix(text[i+len(mark):], mark):
			i += 2*len(mark) - 1
		case strings.HasPrefix(text[i:], mark):
			return i + len(mark)
		case text[i] == '\\' && len(mark) == 1:
			i++
		}
	}
	return len(text)
}

// redactJSON returns a JSON document with everything hidden that looks like a secret in its strings, and everything
// under a key that says so. Anything that is not one JSON document is redacted as text.
func redactJSON(text string) string {
	var document any
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&document); err != nil {
		return redact(text)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return redact(text)
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(redactIn(document, false)); err != nil {
		return redact(text)
	}
	return string(model.PrintableJSON([]byte(b.String())))
}

// byHost are the keys below which the names are hosts', whatever they are called.
var byHost = []string{"roles", "unsettled"}

func redactIn(v any, hosts bool) any {
	switch v := v.(type) {
	case string:
		lines := strings.Split(v, "\n")
		for i, line := range lines {
			lines[i] = redactLine(line)
		}
		return privateKey.ReplaceAllString(strings.Join(lines, "\n"), "${1}"+hidden)
	case []any:
		for i := range v {
			v[i] = redactIn(v[i], hosts)
		}
	case map[string]any:
		for key, of := range v {
			if !hosts && of != "" && secretWord.MatchString(key) {
				v[key] = hidden
			} else {
				v[key] = redactIn(of, slices.Contains(byHost, key))
			}
		}
	}
	return v
}

// redactUnit returns a unit's text as 'systemctl cat' prints it, without comments but for the files' names, without
// values of variables and credentials, and without the arguments of programs that are not pgrex's.
func redactUnit(text string) string {
	var b strings.Builder
	directive := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "# /") && directive == "":
			b.WriteString(line + "\n")
			continue
		case strings.HasPrefix(line, "#"), strings.HasPrefix(line, ";"):
			continue // within a directive, too
		}
		part, more := strings.CutSuffix(line, `\`)
		directive += part
		if !more {
			b.WriteString(redactDirective(directive) + "\n")
			directive = ""
		}
	}
	return b.String() + redactDirective(directive)
}

func redactDirective(line string) string {
	key, value, found := strings.Cut(line, "=")
	key = strings.TrimSpace(key)
	words := strings.Fields(value)
	switch {
	case !found || len(words) == 0:
		return redactLine(line)
	case key == "Environment", strings.HasPrefix(key, "SetCredential"):
		return key + "=" + hidden
	case strings.HasPrefix(key, "Exec") && strings.TrimLeft(words[0], "-@:+!|") != "/usr/bin/pgrex" && len(words) > 1:
		return key + "=" + words[0] + " " + hidden
	}
	return redactLine(line)
}

// redactSettings returns a settings file without comments and what it should not have: lines of a known key stay.
func redactSettings(text string) string {
	var b strings.Builder
	known := settingsFlags()
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		key, _, _ := strings.Cut(line, ":")
		switch {
		case line == "", strings.HasPrefix(line, "#"):
		case slices.ContainsFunc(known, func(f *pflag.Flag) bool { return f.Name == key }):
			b.WriteString(redactLine(line) + "\n")
		default:
			b.WriteString(hidden + "\n") // no line of pgrex's
		}
	}
	return b.String()
}
