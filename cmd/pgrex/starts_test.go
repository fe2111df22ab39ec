package main

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

// mayStart are the places where programs are started, and why. In the daemon all have the group haclient.
var mayStart = map[string]string{
	"cib/exec.go":                  "Pacemaker's tools, and the package manager: nothing else (isKnown)",
	"cmd/pgrex/split.go":           "an operation's part",
	"cmd/pgrex/support.go":         "what pgrex support collects",
	"controller/operation/tool.go": "PostgreSQL's programs, in an operation",
	"controller/operation/cib.go":  "Pacemaker's tools, for tests: it is in internal/fakes",
}

// starters are what a program is started by, by package.
var starters = map[string][]string{
	"os/exec":               {"Command", "CommandContext"},
	"os":                    {"StartProcess"},
	"syscall":               {"ForkExec", "StartProcess", "Exec", "RawSyscall", "RawSyscall6", "Syscall", "Syscall6"},
	"golang.org/x/sys/unix": {"Exec", "RawSyscall", "RawSyscall6", "Syscall", "Syscall6"},
}

// TestStarts: no other file of pgrex starts a program.
func TestStarts(t *testing.T) {
	root := filepath.Join("..", "..")
	files, found := 0, map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(root, path) // both are relative
		name = filepath.ToSlash(name)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == "testenv" || name == "cmd/rexlab" || strings.HasPrefix(d.Name(), ".") && name != "."):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		if strings.HasPrefix(name, "controller/operation/") {
			name = "controller/operation/" + filepath.Base(name) // one folder for each operation, one for what runs programs
		}
		uses := starts(t, file)
		if len(uses) > 0 && mayStart[name] == "" {
			t.Errorf("%s uses %v: only these start programs: %v", name, uses, mayStart)
		}
		found[name] = found[name] || len(uses) > 0
		return nil
	})
	if err != nil || files < 100 {
		t.Errorf("%d files were looked at: %v", files, err)
	}
	for name := range mayStart {
		if !found[name] {
			t.Errorf("%s starts none any more", name)
		}
	}
}

// starts is what a file can start a program by.
func starts(t *testing.T, file *ast.File) (uses []string) {
	t.Helper()
	packages := map[string]string{} // by their names in the file
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		local := path[strings.LastIndex(path, "/")+1:]
		if spec.Name != nil {
			local = spec.Name.Name
		}
		if packages[local] = path; local == "." && starters[path] != nil {
			uses = append(uses, path)
		}
	}
	// A pointer to a Cmd that another place has made starts nothing new.
	given := map[ast.Expr]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.StarExpr:
			given[n.X] = true
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				break
			}
			path := packages[x.Name]
			if slices.Contains(starters[path], n.Sel.Name) || path == "os/exec" && n.Sel.Name == "Cmd" && !given[n] {
				uses = append(uses, path+"."+n.Sel.Name)
			}
		}
		return true
	})
	return uses
}

// TestStartsIsFound: the rule finds what it is there for.
func TestStartsIsFound(t *testing.T) {
	const head = "package p\nimport (\"os\"; run \"os/exec\"; \"syscall\")\n"
	for source, want := range map[string]int{
		"var a = run.Command":                                   1,
		"func f() { run.CommandContext(c, \"sh\").Run() }":      1,
		"func f() { (&run.Cmd{Path: \"sh\"}).Run() }":           1,
		"func f() { c := new(run.Cmd); c.Path = \"sh\" }":       1,
		"func f() { os.StartProcess(a, b, c) }":                 1,
		"func f() { syscall.ForkExec(a, b, c) }":                1,
		"func f(c *run.Cmd) error { return os.Remove(c.Path) }": 0,
		"func f() { run.LookPath(\"sh\"); syscall.Kill(1, 1) }": 0,
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "p.go", head+source, 0)
		if err != nil {
			t.Fatal(err)
		}
		if uses := starts(t, file); len(uses) != want {
			t.Errorf("%s: %v", source, uses)
		}
	}
	file, err := parser.ParseFile(token.NewFileSet(), "p.go", "package p\nimport . \"os/exec\"", 0)
	if err != nil {
		t.Fatal(err)
	}
	if uses := starts(t, file); len(uses) != 1 {
		t.Errorf("without a name: %v", uses)
	}
}
