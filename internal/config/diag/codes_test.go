package diag

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the goldens anew")

// golden compares a text with a file, or writes that with -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs, -update writes it anew:\n%s", path, got)
	}
}

// Codes are a promise to those who filter by them: a name that goes or changes has to be seen in a review.
func TestCodesStayWhatTheyWere(t *testing.T) {
	var names strings.Builder
	for _, k := range Kinds() {
		names.WriteString(string(k.Code) + "\n")
	}
	golden(t, "testdata/codes.txt", names.String())
}

func TestEveryKindIsExplained(t *testing.T) {
	form := regexp.MustCompile(`^[a-z]+(-[a-z]+)+$`)
	seen := map[Code]bool{}
	for _, k := range Kinds() {
		if !form.MatchString(string(k.Code)) || len(k.Code) > 30 {
			t.Errorf("%q isn't a code", k.Code)
		}
		if seen[k.Code] {
			t.Errorf("%s is there twice", k.Code)
		}
		seen[k.Code] = true
		if k.Title == "" || strings.HasSuffix(k.Title, ".") || len(k.Title) > 80 {
			t.Errorf("%s: the title is %q", k.Code, k.Title)
		}
		if text := strings.TrimSpace(k.Text); len(text) < 120 || !strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "-") {
			t.Errorf("%s: no paragraph: %q", k.Code, text)
		}
		for line := range strings.Lines(k.Text) {
			if len(line) > 101 {
				t.Errorf("%s: a line of %d bytes: %s", k.Code, len(line), line)
			}
		}
		if found, known := KindOf(k.Code); !known || found != k {
			t.Errorf("%s isn't found", k.Code)
		}
	}
	if _, known := KindOf("vip"); known {
		t.Error("a code that there isn't is found")
	}
	if near := NearestCode("vip-use-twice"); near != VIPUsedTwice {
		t.Errorf("near vip-use-twice is %q", near)
	}
}

// documentHead is what docs/problems.md has before the kinds.
const documentHead = `# Problems

What ` + "`pgporter check`" + ` and every other command that reads an inventory may find wrong with it. A problem is printed as
` + "`file:line:column: error: what is wrong; what would be right [code]`" + `. An error forbids the use of the inventory, a warning
says that it can be used but probably doesn't do what its writer wants; some kinds are either, by what follows from them.

The code names the kind of problem, and stays what it is from release to release, so that it can be filtered by. ` + "`pgporter check --explain CODE`" + `
prints what stands here. [Checking an inventory](check.md) has the other forms of the output, for CI.

| Code | Problem |
|---|---|
`

// docs/problems.md is written from the table.
func TestDocumentHasEveryKind(t *testing.T) {
	var index, kinds strings.Builder
	for _, k := range Kinds() {
		index.WriteString("| [`" + string(k.Code) + "`](#" + string(k.Code) + ") | " + k.Title + " |\n")
		kinds.WriteString("\n## " + string(k.Code) + "\n\n" + k.Title + ".\n\n" + strings.TrimSpace(k.Text) + "\n")
	}
	golden(t, "../../../docs/problems.md", documentHead+index.String()+kinds.String())
}

// Every constant has its kind and is given to a problem somewhere, and no problem is given anything but a constant.
func TestProblemsHaveCodesOfTheTable(t *testing.T) {
	files := token.NewFileSet()
	declared := map[string]bool{}
	own, err := parser.ParseFile(files, "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range own.Decls {
		constants, is := d.(*ast.GenDecl)
		if !is || constants.Tok != token.CONST {
			continue
		}
		for _, s := range constants.Specs {
			v := s.(*ast.ValueSpec)
			declared[v.Names[0].Name] = false
			if _, known := KindOf(Code(strings.Trim(v.Values[0].(*ast.BasicLit).Value, `"`))); !known {
				t.Errorf("%s has no kind in the table", v.Names[0])
			}
		}
	}
	if len(declared) != len(Kinds()) {
		t.Errorf("%d constants, %d kinds", len(declared), len(Kinds()))
	}
	reported := 0
	look := func(file *ast.File, inside bool) {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if of, is := n.X.(*ast.Ident); is && of.Name == "diag" {
					if _, is := declared[n.Sel.Name]; is {
						declared[n.Sel.Name] = true
					}
				}
			case *ast.KeyValueExpr:
				if key, is := n.Key.(*ast.Ident); is && inside && key.Name == "Code" {
					if value, is := n.Value.(*ast.Ident); is {
						if _, is := declared[value.Name]; is {
							declared[value.Name] = true
						}
					}
				}
			case *ast.CallExpr:
				called, is := n.Fun.(*ast.SelectorExpr)
				if !is || len(n.Args) == 0 {
					return true
				}
				of, _ := called.X.(*ast.Ident)
				if of != nil && of.Name == "diag" && called.Sel.Name == "Code" && !strings.HasPrefix(files.Position(n.Pos()).Filename, "../../cli/") {
					t.Errorf("%s: a code that isn't a constant", files.Position(n.Pos()))
				}
				if called.Sel.Name != "Errorf" && called.Sel.Name != "Warnf" || of != nil && of.Name == "fmt" {
					return true
				}
				reported++
				if literal, is := n.Args[0].(*ast.BasicLit); is {
					t.Errorf("%s: %s isn't a constant", files.Position(n.Pos()), literal.Value)
				}
			}
			return true
		})
	}
	err = filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(files, path, nil, 0)
		if err == nil {
			look(file, filepath.Base(filepath.Dir(path)) == "diag")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, used := range declared {
		if !used {
			t.Errorf("no problem has the code %s", name)
		}
	}
	if reported < 100 {
		t.Errorf("only %d calls that report problems were found", reported)
	}
}
