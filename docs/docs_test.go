// Package docs holds the documentation against the program.
package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestFindings: every code has its line in findings.md, and every line its code.
func TestFindings(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../model/finding.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			for _, v := range spec.Values {
				code, err := strconv.Unquote(v.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				codes[code] = true
			}
		}
		return true
	})
	if len(codes) == 0 {
		t.Fatal("no codes found in model/finding.go")
	}
	text, err := os.ReadFile("findings.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| `") {
			t.Errorf("a row without an anchor, to which the alerts link: %s", line)
		}
		if rest, ok := strings.CutPrefix(line, `| <a id="`); ok {
			code, rest, _ := strings.Cut(rest, `"></a>`)
			if !strings.HasPrefix(rest, "`"+code+"` |") {
				t.Errorf("the anchor %s is that of another code: %s", code, line)
			}
			if !codes[code] {
				t.Errorf("findings.md explains %s, which is no code, or twice", code)
			}
			delete(codes, code)
		}
	}
	for code := range codes {
		t.Errorf("findings.md does not explain %s", code)
	}
}

// byHand are words before an operation that a message tells somebody to type. Operations are for root.
var byHand = regexp.MustCompile(`\b(type:?|then|run|with|needs?) pgrex (rejoin|switchover|start|stop|archive|adopt|release|operation|pause|resume)\b`)

// TestOperationsAreTypedAsRoot: no message tells anybody to type an operation without sudo.
func TestOperationsAreTypedAsRoot(t *testing.T) {
	texts := 0
	for _, folder := range []string{"../cib", "../cmd", "../controller", "../model", "../reconcile"} {
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				expression, ok := n.(ast.Expr)
				if !ok {
					return true
				}
				text := literal(expression)
				if text == "" {
					return true
				}
				texts++
				if found := byHand.FindString(text); found != "" {
					t.Errorf("%s: %q is without sudo: %q", path, found, text)
				}
				return false
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if texts < 1000 {
		t.Errorf("only %d texts were found", texts)
	}
}

// literal is the text of an expression of string literals, as they are put together; "" for any other expression.
func literal(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, _ := strconv.Unquote(e.Value)
		if e.Kind == token.STRING {
			return text
		}
	case *ast.BinaryExpr:
		left, right := literal(e.X), literal(e.Y)
		if left != "" && right != "" {
			return left + right
		}
	}
	return ""
}
