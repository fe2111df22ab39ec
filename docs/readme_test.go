package docs

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestExamples runs every "console" example of the README and of docs/, and compares what it prints.
func TestExamples(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "../cmd/pgrex")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build pgrex: %v\n%s", err, out)
	}
	files, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, file := range append(files, "../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range regexp.MustCompile("(?s)```console\n\\$ (.*?)\n(.*?)```").FindAllSubmatch(text, -1) {
			ran++
			cmd := exec.Command("sh", "-c", string(block[1]))
			cmd.Dir = ".."
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
			out, err := cmd.Output()
			if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || len(exit.Stderr) > 0) {
				t.Errorf("%s: %s: %v", file, block[1], err)
			}
			if !bytes.Equal(out, block[2]) {
				t.Errorf("%s: %s prints\n%s\nnot\n%s", file, block[1], out, block[2])
			}
		}
	}
	if ran == 0 {
		t.Error("no example was found")
	}
}

// TestLinks: every file that the README and docs/ link to is there.
func TestLinks(t *testing.T) {
	files, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllSubmatch(text, -1) {
			target := string(link[1])
			if strings.HasPrefix(target, "https://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), target)); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}
