package reconcile_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/pgrex/pgrex/"

// rooms is where the operations' folders are, one for each; inRoom is what they all may import.
const rooms = "controller/operation/"

var inRoom = slices.Clip([]string{"model", "cib", "reconcile", "controller", "controller/postgres", "controller/operation"})

// decisions are the files of the rooms that decide, and do nothing: as pure as reconcile, which they may import.
var decisions = []string{
	rooms + "rejoin/ladder.go", rooms + "switchover/successor.go", rooms + "handover/ready.go", rooms + "service/here.go",
	rooms + "prune/unneeded.go",
}

// mayImport is the design's table of the house: what each folder may import of this module. Tests may import more.
var mayImport = map[string][]string{
	"model":                {},
	"cib":                  {"model"},
	"reconcile":            {"model"},
	"reconcile/world":      {},
	"controller":           {"model", "cib", "reconcile", "controller/postgres"},
	"controller/postgres":  {"model"},
	"controller/metrics":   {"model", "controller"},
	"controller/web":       {"model", "controller", "controller/metrics"},
	"controller/operation": {"model", "cib", "reconcile", "controller", "controller/postgres"},
	// The rooms. A data folder knows of no operation, and only rejoin's way back is another operation's, too; autorejoin
	// begins the others without a person.
	rooms + "datadir":        {"model", "cib", "reconcile", "controller/postgres"},
	rooms + "rejoin":         append(inRoom, rooms+"datadir"),
	rooms + "switchover":     append(inRoom, rooms+"datadir", rooms+"rejoin"),
	rooms + "handover":       append(inRoom, rooms+"datadir"),
	rooms + "service":        append(inRoom, rooms+"datadir", rooms+"rejoin"),
	rooms + "prune":          append(inRoom, rooms+"datadir"),
	rooms + "autorejoin":     append(inRoom, rooms+"datadir", rooms+"rejoin", rooms+"service"),
	rooms + "internal/fakes": append(inRoom, "controller/operation", "testenv/pgserver"), // imported by tests only
	"cmd/pgrex": append(inRoom, rooms+"rejoin", rooms+"switchover", rooms+"handover", rooms+"service", rooms+"prune", rooms+"autorejoin",
		"controller/metrics", "controller/web", "cmd/manual", "cmd/printer"),
	"cmd/rexlab":       {"testenv", "cmd/manual", "cmd/printer"},
	"cmd/manual":       {},
	"cmd/printer":      {"model"},
	"testenv":          {"model"},
	"testenv/pgserver": {"model"},
	"testenv/stories":  {},
	"docs":             {},
}

// impure are packages that do I/O, read a clock, log, or give another answer each time.
var impure = []string{
	"os", "os/exec", "net", "net/http", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", "io/fs", "syscall",
	"path/filepath",
}

// clock are the functions of package time that read the clock or wait.
var clock = []string{"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep"}

// TestImports holds the house's order: imports point one way, and what decides is pure.
func TestImports(t *testing.T) {
	files, decided := 0, 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files++
		folder, err := filepath.Rel("..", filepath.Dir(path))
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		pure := folder == "model" || folder == "reconcile"
		if name := filepath.ToSlash(filepath.Join(folder, filepath.Base(path))); slices.Contains(decisions, name) {
			decided++
			pure = true
		}
		checkImports(t, folder, path, file, pure)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if decided != len(decisions) {
		t.Errorf("of the rooms' %d decisions %d are there", len(decisions), decided)
	}
	if files < 20 {
		t.Errorf("only %d files were looked at", files)
	}
}

func checkImports(t *testing.T, folder, path string, file *ast.File, pure bool) {
	t.Helper()
	allowed, known := mayImport[filepath.ToSlash(folder)]
	if !known {
		t.Errorf("%s: the design has no folder %s", path, folder)
	}
	if pure && strings.HasPrefix(filepath.ToSlash(folder), rooms) {
		allowed = []string{"model", "reconcile"}
	}
	for _, spec := range file.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		own, isOwn := strings.CutPrefix(name, module)
		switch {
		case isOwn && !slices.Contains(allowed, own):
			t.Errorf("%s: %s must not import %s", path, folder, own)
		case pure && slices.Contains(impure, name):
			t.Errorf("%s: the decision is pure and must not import %s", path, name)
		case pure && !isOwn && strings.Contains(strings.Split(name, "/")[0], "."):
			t.Errorf("%s: the decision imports the standard library only, not %s", path, name)
		}
	}
	if !pure {
		return
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, s.Sel.Name) {
				t.Errorf("%s: the decision has no clock, but uses time.%s", path, s.Sel.Name)
			}
		}
		return true
	})
}
