package cib

import (
	"os"
	"path/filepath"
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
