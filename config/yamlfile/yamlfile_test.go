package yamlfile

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// read decodes a file with every kind of value.
func read(text string, o Options) *Document {
	d := Read("f.yaml", []byte(text), o)
	if d.Root == nil {
		return d
	}
	f := d.Fields(d.Root, "", "name", "count", "wait", "on", "list", "open", "inner")
	f.Require("name", "")
	for key, decode := range map[string]func(*Node, string){
		"name":  func(n *Node, path string) { d.Text(n, path, 8) },
		"count": func(n *Node, path string) { d.Int(n, path, 1, 10) },
		"wait":  func(n *Node, path string) { d.Duration(n, path, time.Second, time.Hour) },
		"on":    func(n *Node, path string) { d.Bool(n, path) },
		"list":  func(n *Node, path string) { d.Items(n, path, 2) },
		"open":  func(n *Node, path string) { d.Entries(n, path) },
		"inner": func(n *Node, path string) { d.Fields(n, path, "deep").Require("deep", "write deep: 1") },
	} {
		if n := f.Get(key); n != nil {
			decode(n, key)
		}
	}
	return d
}

func TestProblems(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"none", "name: x\ncount: 3\nwait: 90s\n\"on\": true\nlist: [1, 2]\nopen: {a: b}\ninner: {deep: 1}", ""},
		{"empty", "", "f.yaml: file is empty"},
		{"comments alone", "# nothing", "f.yaml: file is empty"},
		{"not UTF-8", "name: \xff", "f.yaml: file is not UTF-8 text"},
		{"too long", "#" + strings.Repeat("x", 1<<20), "f.yaml: file has 1048577 bytes, want at most 1048576"},
		{"too many nodes", "name: [" + strings.Repeat(",", 300), "f.yaml: file has more than 200 YAML nodes"},
		{"second document", "name: x\n---\nname: y", "f.yaml:2:1: a second document begins here, want one"},
		{"not YAML", "name: x\nlist: [", "f.yaml:2: not YAML: did not find expected node content"},
		{"second document not YAML", "name: x\n---\n[", "f.yaml:3: not YAML: did not find expected node content"},
		{"list at the top", "- name", "f.yaml:1:1: want a mapping, got a list"},

		{"unknown key", "name: x\nlsit: []", `f.yaml:2:1: key "lsit" is unknown (did you mean list?)`},
		{"unknown key below", "name: x\ninner: {deeep: 1}", `f.yaml:2:9: inner: key "deeep" is unknown (did you mean deep?)`},
		{"unknown key like no other", "name: x\nxyzzy: 1", `f.yaml:2:1: key "xyzzy" is unknown; it is one of name, count, wait, on, list, open, inner`},
		{"key of another mapping", "name: x\ngrace: 1", `f.yaml:2:1: key "grace" is unknown (did you mean discharge.grace?)`},
		{"missing key", "count: 1", `f.yaml:1:1: key "name" is missing`},
		{"missing key below", "name: x\ninner: {}", `f.yaml:2:8: inner: key "deep" is missing; write deep: 1`},
		{"misspelt key", "nmae: x", `f.yaml:1:1: key "nmae" is unknown (did you mean name?)`},
		{"duplicate key", "name: x\nname: y", `f.yaml:2:1: key "name" is a duplicate; the first is in line 1`},
		{"duplicate key of any name", "name: x\nopen: {a: 1, a: 2}", `f.yaml:2:14: open: key "a" is a duplicate; the first is in line 2`},
		{"number as key", "name: x\nopen: {1: 2}", `f.yaml:2:8: open: want a name as key, got 1`},
		{"merge key", "name: x\n<<: {count: 1}", `f.yaml:2:1: want a name as key, got <<`},

		{"number for a string", "name: 7", `f.yaml:1:7: name: want a string, got 7; quote it if it is one`},
		{"nothing for a string", "name:", `f.yaml:1:6: name: want a string, got nothing`},
		{"list for a string", "name: [x]", `f.yaml:1:7: name: want a string, got a list`},
		{"long string", "name: abcdefghi", `f.yaml:1:7: name: want at most 8 bytes, got 9`},
		{"string for a number", "name: x\ncount: many", `f.yaml:2:8: count: want a whole number, got "many"`},
		{"octal number", "name: x\ncount: 010", `f.yaml:2:8: count: want a whole number, got 010`},
		{"large number", "name: x\ncount: 11", `f.yaml:2:8: count: want 1 to 10, got 11`},
		{"string for a boolean", "name: x\n\"on\": yes", `f.yaml:2:7: on: want true or false, got "yes"`},
		{"mapping for a list", "name: x\nlist: {a: 1}", `f.yaml:2:7: list: want a list, got a mapping`},
		{"long list", "name: x\nlist: [1, 2, 3]", `f.yaml:2:7: list: want at most 2 items, got 3`},
		{"duration without unit", "name: x\nwait: 5", `f.yaml:2:7: wait: want a duration such as 90s, 5m, 12h or 30d, got 5; write 5s for seconds`},
		{"string for a duration", "name: x\nwait: five minutes", `f.yaml:2:7: wait: want a duration such as 90s, 5m, 12h or 30d, got "five minutes"`},
		{"list for a duration", "name: x\nwait: [5m]", `f.yaml:2:7: wait: want a duration such as 90s, 5m, 12h or 30d, got a list`},
		{"long duration", "name: x\nwait: 1d", `f.yaml:2:7: wait: want 1s to 1h0m0s, got 24h0m0s`},

		{"tag", "name: !!str 7", `f.yaml:1:7: name: want a string, got a value with the tag !!str; quote it if it is one`},
		{"text for a tag", "name: !(a)", `f.yaml:1:7: name: want a string, got a value with the tag !(a); text that begins with ! belongs in single quotes`},
		{"anchor", "name: &n x", `f.yaml:1:7: name: anchor &n is not allowed; write the value out`},
		{"alias", "name: x\nopen: &o {}\ninner: *o", "f.yaml:2:7: open: anchor &o is not allowed; write the value out\n" +
			`f.yaml:3:8: inner: want a mapping, got an alias (*o); write the value out`},
		{"control characters", "name: \"a\\u200bb\\u202ec long\"\nxy\u200bz: 1", "f.yaml:1:7: name: want at most 8 bytes, got 14\n" +
			"f.yaml:2:1: key \"xy\\u200bz\" is unknown; it is one of name, count, wait, on, list, open, inner"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := read(tt.text, Options{MaxNodes: 200, Paths: []string{"name", "discharge.grace"}})
			if got := d.Problems().Error(); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if d.Failed() != (tt.want != "") {
				t.Errorf("failed: %t", d.Failed())
			}
		})
	}
}

func TestAllowEmpty(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# nothing\n", "---\n", "\uFEFF"} {
		if d := Read("f", []byte(text), Options{AllowEmpty: true}); d.Root != nil || d.Failed() {
			t.Errorf("%q: root %v, problems %v", text, d.Root, d.Problems())
		}
	}
}

func TestExcerpt(t *testing.T) {
	t.Parallel()
	wide := "{" + strings.Repeat("a", 500) + ": 1, wiat: 5m, " + strings.Repeat("b", 500) + ": 1, name: x}"
	for _, tt := range []struct{ name, text, want string }{
		{"word", "name: x\nlsit: []", "    2 | lsit: []\n      | ^^^^\n"},
		{"word with a hyphen", "name: x\nto-do: []", "    2 | to-do: []\n      | ^^^^^\n"},
		{"quoted value", `name: 'it''s much too long'`, "    1 | name: 'it''s much too long'\n      |       ^^^^^^^^^^^^^^^^^^^^^\n"},
		{"phrase", "name: x\nwait: five minutes # or so", "    2 | wait: five minutes # or so\n      |       ^^^^^^^^^^^^\n"},
		{"tab", "name:\t7", "    1 | name: 7\n      |       ^\n"},
		{"wide characters", "name: x\nopen: {ä: 1, ä: 2}", "    2 | open: {ä: 1, ä: 2}\n      |              ^\n"},
		{"control characters", "name: x\n\u200bz: b", "    2 | ?z: b\n      | ^^\n"},
		{"CR LF", "name: x\r\nb: c\r\n", "    2 | b: c\n      | ^\n"},
		{"byte order mark", "\uFEFFb: c\nname: x", "    1 | b: c\n      | ^\n"},
		{"last of a long line", wide, " 1, wiat: 5m, "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			if _, err := read(tt.text, Options{}).Problems().WriteTo(&b); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(b.String(), tt.want) {
				t.Errorf("got\n%s\nwant\n%s", &b, tt.want)
			}
			for _, line := range strings.Split(b.String(), "\n") {
				if strings.Contains(line, " | ") && utf8.RuneCountInString(line) > 120 {
					t.Errorf("line of %d characters: %s", utf8.RuneCountInString(line), line)
				}
			}
		})
	}
}

// TestUnderline checks that the cut parts of a long line leave the mark under
// the word.
func TestUnderline(t *testing.T) {
	t.Parallel()
	line := strings.Repeat("x", 300) + " here " + strings.Repeat("y", 300)
	text, mark := excerpt(line, 302, 4)
	if at := strings.Index(mark, "^^^^"); at < 0 || text[at:at+4] != "here" {
		t.Errorf("got\n%s\n%s", text, mark)
	}
}

func TestSecretsAreHidden(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"name: x\npassword: hunter2, lsit: 1}",
		"{nmae: x, password: hunter2, lsit: 1}",
		"{nmae: x, password: 'it''s hunter2', lsit: 1}",
		"{nmae: x, password: \"it\\\"s hunter2\", lsit: 1}",
		"nmae: x\npassword: |\n  some\n  hunter2\nlsit: 1",
		"nmae: x\npassword: [a, {b: hunter2}]",
		"name: x\nname: hunter2",
		"name: x\nlist: {a: hunter2}",
		"name: [hunter2]",
		"1: hunter2",
		"- hunter2",
		"name: hunter2\nb: [",
	} {
		var b strings.Builder
		if _, err := read(text, Options{Secrets: true}).Problems().WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		if b.Len() == 0 || strings.Contains(b.String(), "hunter2") {
			t.Errorf("%q: got\n%s", text, &b)
		}
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	grammar, other := errors.New("grammar"), errors.New("other")
	d := Read("f", []byte("a: 1\nb: 2"), Options{Kind: grammar})
	d.Fields(d.Root, "", "a")
	d.Report(&Problem{Line: 1, Column: 1, Message: "m", Err: other})
	err := d.Problems().Err()
	if !errors.Is(err, grammar) || !errors.Is(err, other) {
		t.Errorf("got %v", err)
	}
}

func TestWarningsDoNotFail(t *testing.T) {
	t.Parallel()
	d := Read("f", []byte("a: 1"), Options{MaxProblems: 2})
	for range 3 {
		d.Warnf(d.Root, "odd")
	}
	if got := d.Problems(); d.Failed() || got.Err() != nil || len(got) != 2 || got[0].Error() != "f:1:1: warning: odd" {
		t.Errorf("failed %t: %v", d.Failed(), got)
	}
	d.Errorf(d.Root, "wrong")
	if got := d.Problems(); !d.Failed() || len(got) != 3 || got[2].Error() != "f: more than 2 problems; the rest is not shown" {
		t.Errorf("failed %t: %v", d.Failed(), got)
	}
}

// TestLineBreaks finds the place behind every line break of YAML.
func TestLineBreaks(t *testing.T) {
	t.Parallel()
	for _, br := range []string{"\n", "\r\n", "\r", "\u0085", "\u2028", "\u2029"} {
		d := read("# one"+br+"# two"+br+"name: \"a"+br+"  b\"\nlsit: 1", Options{})
		all := d.Problems()
		if len(all) != 1 || all[0].Line != 5 || all[0].Column != 1 || all[0].Text != "lsit: 1" {
			t.Errorf("%q: %+v", br, all)
		}
	}
}

// TestPosition finds a character in each of the ways in which YAML writes a
// string.
func TestPosition(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text string }{
		{"plain", "a: now - !here"},
		{"double quotes", `a: "\"\\ \u00fc \x41 \U0001F600 !here"`},
		{"single quotes", "a: 'it''s !here'"},
		{"literal", "a: |\n    one\n      two !here\n"},
		{"literal with indentation", "a: |2\n      one\n    !here\n"},
		{"folded", "a: >-\n  one\n  two !here\n"},
		{"plain lines", "a: one\n  two\n  !here"},
		{"quoted lines", "a: \"one\n  two\n\n  !here\""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := Read("f", []byte(tt.text), Options{})
			n := d.Entries(d.Root, "")[0].Value
			offset := utf8.RuneCountInString(n.Value[:strings.Index(n.Value, "!here")])
			d.ErrorIn(n, offset+1, "here")
			p := d.Problems()[0]
			if p.Column < 2 || p.Width != 4 || !strings.HasPrefix(string([]rune(p.Text)[p.Column-1:]), "here") {
				t.Errorf("place %d:%d, %d wide", p.Line, p.Column, p.Width)
			}
		})
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"listen", "password_file", "password_env", "ttl", "max_ttl", "files"}
	for word, want := range map[string]string{
		"listne": "listen", "Listen": "listen", "lsten": "listen", "tll": "ttl", "file": "files",
		"password": "password_env", "max-ttl": "max_ttl", "": "", "xyzzy": "", strings.Repeat("listen", 20): "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "acb", 1}, {"abc", "ab", 1}, {"kitten", "sitting", 3},
	} {
		if got := Distance(tt.a, tt.b); got != tt.want {
			t.Errorf("%q, %q: got %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "0": 0, "0s": 0, "30d": 30 * day, "1d12h": 36 * time.Hour, "-90d": -90 * day,
		"-1h": -time.Hour, "+5m": 5 * time.Minute, "1.5h": 90 * time.Minute, "65535d": 65535 * day,
	} {
		if got, err := ParseDuration(text); got != want || err != nil {
			t.Errorf("%q: got %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-", "+", "5", "five", "d", "1dd", "1d-1h", "--1h", "+-1h", "1h1d", "65536d", "-1d-1h", "9999999h9999999h", " 5m"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q: got %s", text, got)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, text := range []string{
		"name: x", "nmae: [", "a: &b c\nd: *b", "name: |\n  x\n lsit: 1", "{password: 'x\n y', \"q\\", "\uFEFF#\u0085name: 1\u2028", "? [a]\n: b", "--- !x\n",
	} {
		f.Add(text, true)
	}
	f.Fuzz(func(t *testing.T, text string, secrets bool) {
		d := read(text, Options{Secrets: secrets, MaxProblems: 5})
		if d.Root == nil && !d.Failed() {
			t.Fatal("no document and no problem")
		}
		if d.Root != nil {
			for i := range 3 {
				d.ErrorIn(d.Root, i, "here")
			}
			d.Hide(d.Root)
		}
		var b strings.Builder
		if _, err := d.Problems().WriteTo(&b); err != nil || !utf8.ValidString(b.String()) {
			t.Fatalf("not text: %q, %v", b.String(), err)
		}
		for _, p := range d.Problems() {
			if p.Line < 0 || p.Line > len(d.lines) || p.Column < 0 || p.Width < 0 || p.Message == "" {
				t.Fatalf("problem %+v", p)
			}
		}
	})
}

// A file of 1 MiB would take minutes if each of its problems cost its longest line.
func TestManyProblemsAreCheap(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"duplicates in one line": "{" + strings.Repeat("a: 1, ", 20_000) + "}",
		"open values":            strings.Repeat("a: |\n x\n", 20_000),
		"list as a mapping":      strings.Repeat("- &a x\n", 20_000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := Read("f.yaml", []byte(text), Options{Secrets: true})
			if d.Root == nil {
				t.Fatal(d.Problems())
			}
			d.Fields(d.Root, "", "b")
			if most := maxMasked + len(text) + 1; d.masked > most {
				t.Errorf("masking has read %d bytes, more than %d", d.masked, most)
			}
			for _, p := range d.Problems() {
				if p.Text != "" {
					t.Fatalf("problem shows %.20q after masking was given up", p.Text)
				}
			}
			before := d.masked
			if d.ErrorIn(d.Root, 0, "late"); !d.Failed() || d.masked != before {
				t.Error("late problem is lost")
			}
		})
	}
}
