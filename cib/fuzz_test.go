package cib

import (
	"encoding/json"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// FuzzParse looks for input that makes Parse panic, take long or much memory, give an error of more than a line, or a
// cluster that cannot be relied on.
func FuzzParse(f *testing.F) {
	own, err := filepath.Glob("testdata/*.xml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range own {
		f.Add(readFile(f, file))
	}
	for _, c := range growing {
		f.Add([]byte(c.make(3)))
	}
	for seed := range uint64(20) {
		f.Add(randomCIB(rand.New(rand.NewPCG(seed, 2))))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		start := time.Now()
		memory, err := allocated(data)
		// Hundred times what it takes; a machine may be slow, and have other things to do.
		if took, limit := time.Since(start), 2*time.Second+time.Duration(len(data))*5*time.Microsecond; took > limit {
			t.Errorf("%d bytes took %v, more than %v", len(data), took, limit)
		}
		if limit := memoryLimit(data); memory > limit {
			t.Errorf("%d bytes took %d bytes of memory, more than %d", len(data), memory, limit)
		}
		if err != nil {
			if text := err.Error(); len(text) > 1000 || strings.ContainsAny(text, "\n\r\x00\x1b") {
				t.Errorf("error %q", text)
			}
			return
		}
		checkReliable(t, data)
	})
}

// checkReliable checks what everybody relies on in what Parse makes of data.
func checkReliable(t *testing.T, data []byte) {
	t.Helper()
	first, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := Validate(first); err != nil {
		t.Error(err)
	}
	again, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("parsed again:\n%s", diff)
	}
	if _, err := json.Marshal(first); err != nil {
		t.Error(err)
	}
}
