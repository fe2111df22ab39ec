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

// mayImport is the design's table of the house: what each folder may import of this module. Tests may import more.
var mayImport = map[string][]string{
	"model":                {},
	"cib":                  {"model"},
	"reconcile":            {"model"},
	"reconcile/world":      {},
	"controller":           {"model", "cib", "reconcile", "controller/postgres"},
	"controller/postgres":  {"model"},
	"controller/operation": {"model", "cib", "reconcile", "controller", "controller/postgres"},
	"cmd/pgrex":            {"model", "cib", "reconcile", "controller", "controller/postgres", "controller/operation", "cmd/manual", "cmd/printer"},
	"cmd/rexlab":           {"testenv", "cmd/manual", "cmd/printer"},
	"cmd/manual":           {},
	"cmd/printer":          {"model"},
	"testenv":              {"model"},
	"testenv/pgserver":     {"model"},
	"testenv/stories":      {},
	"docs":                 {},
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
	files := 0
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
		checkImports(t, folder, path, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Errorf("only %d files were looked at", files)
	}
}

func checkImports(t *testing.T, folder, path string, file *ast.File) {
	t.Helper()
	allowed, known := mayImport[filepath.ToSlash(folder)]
	if !known {
		t.Errorf("%s: the design has no folder %s", path, folder)
	}
	pure := folder == "model" || folder == "reconcile"
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
