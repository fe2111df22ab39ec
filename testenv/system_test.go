package testenv

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSumOfRoot: whatever changes in a root, a size, a mode or a name, changes its checksum.
func TestSumOfRoot(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "etc", "passwd")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Dir(path), 0o700))
	must(os.WriteFile(path, []byte("root"), 0o600))
	sum := func() string {
		t.Helper()
		s, err := sumOfRoot(root)
		must(err)
		return s
	}
	last := sum()
	if again := sum(); again != last {
		t.Fatalf("two sums of the same root: %s and %s", last, again)
	}
	for _, c := range []struct {
		what   string
		change func() error
	}{
		{"a file's size", func() error { return os.WriteFile(path, []byte("nobody"), 0o600) }},
		{"a file's mode", func() error { return os.Chmod(path, 0o400) }},
		{"another file", func() error { return os.WriteFile(path+"-", nil, 0o600) }},
		{"a link", func() error { return os.Symlink("passwd", filepath.Join(root, "etc", "link")) }},
		{"a file that went", func() error { return os.Remove(path) }},
	} {
		must(c.change())
		now := sum()
		if now == last {
			t.Errorf("%s is not noticed", c.what)
		}
		last = now
	}
	if _, err := sumOfRoot(filepath.Join(root, "none")); err == nil {
		t.Error("a root that is not there has a sum")
	}
}

// TestSystems: each has a name, packages and a recipe of its own.
func TestSystems(t *testing.T) {
	recipes := map[string]string{}
	for _, s := range Systems() {
		if other := recipes[s.recipe()]; other != "" {
			t.Errorf("%s and %s are made alike", s.Name, other)
		}
		recipes[s.recipe()] = s.Name
		if named, err := SystemNamed(s.Name); err != nil || named != s {
			t.Errorf("%s is %v, %v", s.Name, named, err)
		}
		if !strings.Contains(strings.Join(s.packages(), " "), "postgresql-"+s.PostgreSQL) {
			t.Errorf("%s has no PostgreSQL %s", s.Name, s.PostgreSQL)
		}
	}
	if s, err := SystemNamed(""); err != nil || s != Systems()[0] {
		t.Errorf("the default is %v, %v", s, err)
	}
}

// TestRootNotMade: what cannot be made says why, and nothing is left of it but its log.
func TestRootNotMade(t *testing.T) {
	needLab(t)
	none := System{Name: "test", Suite: "no-such-suite", PostgreSQL: "18"}
	t.Cleanup(func() {
		for _, left := range []string{".lock", ".log"} {
			if err := os.Remove(none.Root() + left); err != nil {
				t.Error(err)
			}
		}
		if left, err := filepath.Glob(none.Root() + "*"); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
	if err := none.Make(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "no-such-suite") {
		t.Errorf("it fails with %v", err)
	}
}
