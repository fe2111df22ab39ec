package cib

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRingAddresses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "corosync.conf")
	const text = `totem {
	version: 2
	interface {
		ringnumber: 0
	}
}
nodelist {
	# the first
	node {
		ring0_addr: 192.0.2.1
		ring1_addr: 198.51.100.1
		name: PM01
		nodeid: 1
	}
	node {
		name:pm02
		ring0_addr: pm02-ic
	}
	node {
		ring0_addr: 192.0.2.3
	}
	node {
		name: nowhere
	}
}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := RingAddresses(file)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"pm01": "192.0.2.1", "pm02": "pm02-ic", "192.0.2.3": "192.0.2.3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := RingAddresses(file + ".not"); err == nil {
		t.Error("a file that is not there gives no error")
	}
}

// What lets half of the nodes, or fewer, have the quorum.
func TestOddVotes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "corosync.conf")
	const nodes = "nodelist {\n\tnode {\n\t\tring0_addr: 192.0.2.1\n\t\tquorum_votes: 1\n\t}\n\tnode {\n\t\tring0_addr: 192.0.2.2\n\t}\n\tnode {\n\t}\n}\n"
	for text, want := range map[string]string{
		nodes + "quorum {\n\tprovider: corosync_votequorum\n\texpected_votes: 3\n\tlast_man_standing: 0\n}\n": "",
		nodes + "quorum {\n\tlast_man_standing: 1\n}\n":                                                       "quorum.last_man_standing is 1",
		nodes + "quorum {\n\tauto_tie_breaker:1\n}\n":                                                         "quorum.auto_tie_breaker is 1",
		nodes + "quorum {\n\tallow_downscale: 1\n}\n":                                                         "quorum.allow_downscale is 1",
		nodes + "quorum {\n\t# no\n\tdevice {\n\t\tmodel: net\n\t\tvotes: 1\n\t}\n}\n":                        "there is a quorum device",
		nodes + "quorum {\n\texpected_votes: 1\n}\n":                                                          "quorum.expected_votes is 1, of 3 nodes",
		nodes + "quorum {\n\texpected_votes: one\n}\n":                                                        "quorum.expected_votes is one",
		strings.Replace(nodes, "quorum_votes: 1", "quorum_votes: 3", 1):                                       "nodelist/node.quorum_votes is 3",
		"quorum {\n\tvotes: 2\n}\n":                                                                           "quorum.votes is 2",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := OddVotes(file); err != nil || got != want {
			t.Errorf("%q, %v; want %q of\n%s", got, err, want, text)
		}
	}
	if _, err := OddVotes(file + ".not"); err == nil {
		t.Error("a file that is not there gives no error")
	}
}
