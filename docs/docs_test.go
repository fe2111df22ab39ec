// Package docs holds the documentation against the program.
package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
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
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			code, _, _ := strings.Cut(rest, "`")
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
