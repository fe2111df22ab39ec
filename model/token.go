package model

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Phase is how far an operation has come, as far as another host has to know that.
type Phase string

// The phases, in order.
const (
	PhaseBegun       Phase = "begun"       // nothing is guarded yet
	PhaseMaintenance Phase = "maintenance" // maintenance-mode is on because of the operation
	PhaseGiven       Phase = "given"       // the operation has left maintenance-mode, and has not ended yet
)

// Token is the lock that an operation holds in the whole cluster, for one database: the value of a cluster option
// (TokenName). It outlives the process and the host that made it, and says what another one has to know to finish the
// operation or to undo it.
type Token struct {
	Operation string // the command, such as "switchover": lower-case letters and "-"
	Host      string // the node that works on it
	Phase     Phase
	Target    string // the node that the operation is about, if that is another one; "" for none
	// Value is this token's own and no other's: 32 hexadecimal digits, at random. It stays while the phase changes, and is
	// another one where another host takes the operation over.
	Value string
	Begun time.Time // in whole seconds of UTC
}

// operationPrefix is how the names begin of what operations leave in the CIB.
const operationPrefix = "pgrex-operation-"

// TokenName returns the name of the cluster option that holds a database's token. Its set in crm_config has the same
// id.
func TokenName(primitive string) string { return operationPrefix + primitive }

// OperationAttribute returns the name of the transient node attribute by which a host says that an operation for a
// database was begun there, and that nobody works on it. Its value is the operation's name.
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

// ParseToken reads a token just as String writes it. Anything else is an error: a token half understood could be taken
// for another host's, or for none.
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
		err = errors.New("its words are not those of a token, or not in their order")
	}
	if err != nil {
		return Token{}, fmt.Errorf("%q is no token that this pgrex understands: %w", text, err)
	}
	return t, nil
}

func (t Token) check() error {
	switch {
	case t.Operation == "" || strings.Trim(t.Operation, "abcdefghijklmnopqrstuvwxyz-") != "":
		return fmt.Errorf("%q is no operation", t.Operation)
	case t.Host == "" || !isWord(t.Host) || !isWord(t.Target):
		return errors.New("it does not name a host")
	case t.Phase != PhaseBegun && t.Phase != PhaseMaintenance && t.Phase != PhaseGiven:
		return fmt.Errorf("%q is no phase", t.Phase)
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

// Token returns the token of a database's operation. There is none where the bool is false. With an error there is one
// that cannot be read.
func (c Cluster) Token(primitive string) (Token, bool, error) {
	text, there := c.Properties[TokenName(primitive)]
	if !there {
		return Token{}, false, nil
	}
	t, err := ParseToken(text)
	return t, true, err
}

// LocalOperation is what the state folder of this host says of an operation that was begun here.
type LocalOperation struct {
	Operation string    `json:"operation"` // the command, such as "switchover"
	Begun     time.Time `json:"begun"`
	Who       string    `json:"who,omitempty"` // who began it; "" where nobody knows
	Running   bool      `json:"running"`       // false: the process that worked on it is gone
}

// Left reports whether an operation was begun here, and nobody works on it. There may be none at all.
func (o *LocalOperation) Left() bool { return o != nil && !o.Running }
