package house

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// maxLines is where a file is two rooms.
const maxLines = 400

func TestEveryPackageIsDocumented(t *testing.T) {
	for _, p := range all(t) {
		if within(p.ImportPath, "proto") || len(p.GoFiles) == 0 {
			continue // what is generated; packages of tests alone
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command "
		}
		if !strings.HasPrefix(p.Doc, want) {
			t.Errorf("doc of %s = %q, want it to begin with %q", p.room(), p.Doc, want)
		}
	}
}

func TestFilesAreShort(t *testing.T) {
	for _, p := range all(t) {
		for _, name := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			path := filepath.Join(p.Dir, name)
			lines, generated := measure(t, path)
			if !generated && lines > maxLines {
				t.Errorf("%s/%s has %d lines, want at most %d", p.room(), name, lines, maxLines)
			}
		}
	}
}

// measure counts the lines of a file, and finds the mark of generated code
// (go.dev/s/generatedcode).
func measure(t *testing.T, path string) (lines int, generated bool) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		lines++
		text := s.Text()
		generated = generated || strings.HasPrefix(text, "// Code generated ") && strings.HasSuffix(text, " DO NOT EDIT.")
	}
	return lines, generated
}

// A test that sleeps is slow where it is right and wrong where the machine is
// slow; elsewhere nothing gives a sleep up. tests/house asks for files that no
// linter sees, such as those of another build tag.
func TestNobodySleeps(t *testing.T) {
	base := root(t)
	err := filepath.WalkDir(base, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || path == filepath.Join(base, "bin")) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
					t.Errorf("%s: time.Sleep", fset.Position(sel.Pos()))
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
