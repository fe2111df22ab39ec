package printer

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// streams are what leads past the printer to the terminal, by package or, "", of whatever value.
var streams = map[string][]string{
	"os":  {"Stdout", "Stderr"},
	"fmt": {"Print", "Println", "Printf"},
	"": {"OutOrStdout", "OutOrStderr", "ErrOrStderr", "PrintErr", "PrintErrln", "PrintErrf", // cobra's
		"Print", "Println", "Printf"},
}

// mayUse names files that may use such a thing, and why.
var mayUse = map[string]string{
	"cmd/pgrex/log.go: os.Stderr":   "it compares the file with $JOURNAL_STREAM, and writes to none",
	"cmd/pgrex/split.go: os.Stdout": "it is the child's, too, which is this program",
	"cmd/pgrex/split.go: os.Stderr": "it is the child's, too, which is this program",
}

// formats are the printer's functions that take a format, and at which place.
var formats = map[string]int{"Line": 0, "Wrapped": 1, "Titled": 2}

// TestOnlyPrinter: trap 44. Nothing but the printer writes to standard output or standard error, and what it takes as
// a format is written in the source. The lab's own processes, which write their log, are no commands.
func TestOnlyPrinter(t *testing.T) {
	used := map[string]bool{}
	files := 0
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(root, path) // both are relative
		name = filepath.ToSlash(name)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == "cmd/printer" || name == "testenv" || strings.HasPrefix(d.Name(), ".") && name != "."):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		for _, use := range past(file) {
			if use = name + ": " + use; mayUse[use] == "" {
				t.Errorf("%s: print through a printer.Printer, which makes values printable", use)
			}
			used[use] = true
		}
		return nil
	})
	if err != nil || files < 100 {
		t.Errorf("%d files were looked at: %v", files, err)
	}
	for use := range mayUse {
		if !used[use] {
			t.Errorf("%s is used no more", use)
		}
	}
}

// past is what a file uses to get past the printer.
func past(file *ast.File) (uses []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			x, _ := n.X.(*ast.Ident)
			of := ""
			if x != nil && streams[x.Name] != nil {
				of = x.Name
			}
			if slices.Contains(streams[of], n.Sel.Name) {
				uses = append(uses, strings.TrimPrefix(of+"."+n.Sel.Name, "."))
			}
		case *ast.CallExpr:
			switch f := n.Fun.(type) {
			case *ast.Ident:
				if f.Name == "print" || f.Name == "println" {
					uses = append(uses, f.Name)
				}
			case *ast.SelectorExpr:
				at, ok := formats[f.Sel.Name]
				if !ok || len(n.Args) <= at {
					break
				}
				if literal, ok := n.Args[at].(*ast.BasicLit); !ok || literal.Kind != token.STRING {
					uses = append(uses, f.Sel.Name+" with a value as the format")
				}
			}
		}
		return true
	})
	return uses
}

// TestPast: the rule finds what it is there for.
func TestPast(t *testing.T) {
	const source = `package p
func f(cmd *cobra.Command, out *printer.Printer, value string) {
	fmt.Fprintln(cmd.OutOrStdout(), value)
	fmt.Fprintf(os.Stderr, "%s", value)
	fmt.Println(value)
	cmd.Printf("%s", value)
	cmd.PrintErrln(value)
	println(value)
	out.Line(value)
	out.Wrapped(printer.Red, "x"+value)
	out.Line("%s", value)
	fmt.Fprintln(&strings.Builder{}, value)
}`
	file, err := parser.ParseFile(token.NewFileSet(), "p.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"OutOrStdout", "os.Stderr", "fmt.Println", "Printf", "PrintErrln", "println",
		"Line with a value as the format", "Wrapped with a value as the format"}
	if got := past(file); !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}
