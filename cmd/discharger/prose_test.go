package main_test

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// proseRules are the rules of language that a machine can hold: a clause has a
// noun of the code as its subject, and verbs of people have people as theirs.
var proseRules = []struct {
	name    string
	pattern *regexp.Regexp
}{
	{"headless", regexp.MustCompile(`(?i)\b(?:what|whatever|whoever|those who)\b|(?:^|[.;:(] ?)[Ww]ho\b`)},
	{"people", regexp.MustCompile(`(?i)\b(?:nobody|somebody|someone|everybody|everyone|anybody|anyone)\b`)},
	{"verb", regexp.MustCompile(`(?i)\b(?:says|said|tells|told|asks|asked|knows|knew|hears|heard|wants)\b`)},
}

// codeSpan is code in the text of a document, which may quote any word.
var codeSpan = regexp.MustCompile("`[^`\n]+`")

// mostProse is how many hits of all rules a package may have for 1 000 words.
const mostProse = 0.3

// prose is the text of one directory: comments and string literals of its Go
// files, and its documents.
type prose struct {
	words int
	hits  []string
}

// add counts a text that begins at a line of a file.
func (p *prose) add(file string, line int, text string) {
	p.words += len(strings.Fields(text))
	for i, part := range strings.Split(text, "\n") {
		for _, rule := range proseRules {
			for _, hit := range rule.pattern.FindAllString(part, -1) {
				p.hits = append(p.hits, fmt.Sprintf("%s:%d: %s %q: %s", file, line+i, rule.name, strings.TrimSpace(hit), strings.TrimSpace(part)))
			}
		}
	}
}

// code adds a Go file.
func (p *prose) code(name, file string) error {
	positions := token.NewFileSet()
	parsed, err := parser.ParseFile(positions, file, nil, parser.ParseComments)
	if err != nil {
		return err
	}
	for _, group := range parsed.Comments {
		for _, c := range group.List {
			p.add(name, positions.Position(c.Pos()).Line, c.Text)
		}
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.Field:
			n.Tag = nil
		case *ast.BasicLit:
			if n.Kind == token.STRING {
				p.add(name, positions.Position(n.Pos()).Line, strings.Trim(n.Value, "`\""))
			}
		}
		return true
	})
	return nil
}

// TestProse counts, for each directory, phrases that hide the subject of a
// sentence, in comments, string literals and documents.
func TestProse(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	all := make(map[string]*prose)
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(file, root+string(filepath.Separator)))
		if d.IsDir() {
			if file != root && (d.Name() == ".git" || d.Name() == "testdata" && !strings.HasSuffix(name, "script")) {
				return filepath.SkipDir
			}
			return nil
		}
		dir := filepath.ToSlash(filepath.Dir(name))
		p := all[dir]
		if p == nil {
			p = new(prose)
			all[dir] = p
		}
		switch filepath.Ext(name) {
		case ".go":
			if d.Name() == "prose_test.go" {
				return nil // the rules themselves
			}
			return p.code(name, file)
		case ".md", ".txtar", ".yaml", ".lua", "":
			text, err := os.ReadFile(file)
			if err == nil {
				p.add(name, 1, codeSpan.ReplaceAllString(string(text), "``"))
			}
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range slices.Sorted(maps.Keys(all)) {
		p := all[dir]
		if rate := float64(len(p.hits)) * 1000 / float64(cmp.Or(p.words, 1)); rate > mostProse {
			t.Errorf("%s: %.1f for 1 000 words, more than %.1f:\n  %s", dir, rate, mostProse, strings.Join(p.hits, "\n  "))
		}
	}
}
