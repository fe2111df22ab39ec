package model

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Phase is how far an operation has come, as far as other hosts have to know.
type Phase string

// The phases, in order.
const (
	PhaseBegun       Phase = "begun"       // the operation guards nothing yet
	PhaseMaintenance Phase = "maintenance" // maintenance-mode is on because of the operation
	PhaseGiven       Phase = "given"       // the operation has left maintenance-mode, and has not ended yet
)

// Token is the lock that an operation holds on one database in the whole cluster: the value of a cluster option
// (TokenName). It outlives the process and the host that made it. It says what another host has to know to finish or
// undo the operation.
type Token struct {
	Operation string // the command, such as "switchover": lower-case letters and "-"
	Host      string // the node that works on it
	Phase     Phase
	Target    string // another node that the operation is about; may be ""
	// Value identifies this token: 32 random hexadecimal digits. It stays while the phase changes. A host that takes
	// the operation over sets another one.
	Value string
	Begun time.Time // in whole seconds of UTC
}

// operationPrefix begins the names of all that operations leave in the CIB.
const operationPrefix = "pgrex-operation-"

// TokenName returns the name of the cluster option that holds a database's token. Its set in crm_config has the same
// id.
func TokenName(primitive string) string { return operationPrefix + primitive }

// OperationAttribute returns the name of the transient node attribute by which a host says that an operation on a
// database was begun there, and that nobody works on it. Its value is the name of the operation.
func OperationAttribute(primitive string) string { return operationPrefix + primitive }

// tokenValue is how many digits Token.Value has.
const tokenValue = 32

// String returns the token as ParseToken reads it: one line of words.
func (t Token) String() string {
	words := []string{t.Operation, "host=" + t.Host}
	if t.Target != "" {
		words = append(words, "target="+t.Target)
	}
	words = append(words, "phase="+string(t.Phase), "begun="+t.Begun.UTC().Format(time.RFC3339), "value="+t.Value)
	return strings.Join(words, " ")
}

// ParseToken reads a token exactly as String writes it. Anything else is an error: a half-understood token could pass
// for that of another host, or for none.
func ParseToken(text string) (Token, error) {
	var t Token
	var rest string
	var badTime error
	t.Operation, rest, _ = strings.Cut(text, " ")
	for word := range strings.SplitSeq(rest, " ") {
		switch key, value, _ := strings.Cut(word, "="); key {
		case "host":
			t.Host = value
		case "target":
			t.Target = value
		case "phase":
			t.Phase = Phase(value)
		case "begun":
			t.Begun, badTime = time.Parse(time.RFC3339, value)
		case "value":
			t.Value = value
		}
	}
	err := badTime
	if err == nil {
		err = t.check()
	}
	if err == nil && t.String() != text {
		err = errors.New("the words of a token are missing, wrong or out of order")
	}
	if err != nil {
		return Token{}, fmt.Errorf("%q is not a token: %w", text, err)
	}
	return t, nil
}

func (t Token) check() error {
	switch {
	case t.Operation == "" || strings.Trim(t.Operation, "abcdefghijklmnopqrstuvwxyz-") != "":
		return fmt.Errorf("%q is not an operation", t.Operation)
	case t.Host == "" || !isWord(t.Host) || !isWord(t.Target):
		return errors.New("it does not name a host")
	case t.Phase != PhaseBegun && t.Phase != PhaseMaintenance && t.Phase != PhaseGiven:
		return fmt.Errorf("%q is not a phase", t.Phase)
	case len(t.Value) != tokenValue || strings.Trim(t.Value, "0123456789abcdef") != "":
		return fmt.Errorf("its value is not %d hexadecimal digits", tokenValue)
	}
	return nil
}

// isWord reports whether a text can stand between two blanks of a line.
func isWord(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	})
}

// What returns the operation as part of a sentence: "switchover to pm02".
func (t Token) What() string {
	if t.Target == "" {
		return t.Operation
	}
	return t.Operation + " to " + t.Target
}

// Token returns the token of the operation on a database. The bool is false if there is none. An error means that there
// is one which cannot be read.
func (c Cluster) Token(primitive string) (Token, bool, error) {
	text, there := c.Properties[TokenName(primitive)]
	if !there {
		return Token{}, false, nil
	}
	t, err := ParseToken(text)
	return t, true, err
}

// HasTokens reports whether an operation holds any database of the cluster.
func (c Cluster) HasTokens() bool {
	for name := range c.Properties {
		if strings.HasPrefix(name, operationPrefix) {
			return true
		}
	}
	return false
}

// LocalOperation is what the state folder of this host says of an operation that was begun here. nil means that this is
// unknown.
type LocalOperation struct {
	Operation string    `json:"operation"` // the command, such as "switchover"; "" if none was begun
	Begun     time.Time `json:"begun"`
	Who       string    `json:"who,omitempty"` // who began it; "" if unknown
	Running   bool      `json:"running"`       // false: the process that worked on it is gone
}

// Left reports whether an operation was begun here, and nobody works on it.
func (o *LocalOperation) Left() bool { return o != nil && o.Operation != "" && !o.Running }

// None reports whether it is certain that no operation was begun here.
func (o *LocalOperation) None() bool { return o != nil && o.Operation == "" }
