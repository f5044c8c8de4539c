package main

import (
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/discharger/discharger/discharger/testkit"
)

// TestReadmeTranscript runs the commands of the README's transcript against a real
// service and compares their output, in which … stands for any text.
func TestReadmeTranscript(t *testing.T) {
	t.Parallel()
	_, transcript, found := strings.Cut(readDocument(t, "README.md"), "```console\n")
	transcript, _, end := strings.Cut(transcript, "```\n")
	if !found || !end {
		t.Fatal("no transcript")
	}
	dir := t.TempDir()
	program, err := exec.LookPath("discharger")
	testkit.NoError(t, err)
	configuration := filepath.Join(dir, "discharger.yaml")
	testkit.NoError(t, os.WriteFile(configuration, []byte(patientSetting), 0o600))
	service, err := start(dir, os.Environ(), program, "serve", "--config", configuration, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	testkit.NoError(t, err)
	t.Cleanup(service.kill)
	address, _, err := service.addresses()
	testkit.NoError(t, err)
	run := func(command string) string {
		t.Helper()
		c := exec.Command("sh", "-c", command)
		c.Dir, c.Env = dir, append(os.Environ(), "DISCHARGER_SERVICE="+address)
		out, err := c.CombinedOutput()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatalf("%s: %v", command, err)
		}
		return string(out)
	}
	run("discharger keys new --kind homeserver --name example.org homeserver.json >> discharger.yaml")
	testkit.NoError(t, service.cmd.Process.Signal(syscall.SIGHUP))
	_, err = service.waitFor("msg=reloaded homeservers=1")
	testkit.NoError(t, err)
	steps := strings.Split(transcript, "$ ")[1:]
	if len(steps) < 5 {
		t.Errorf("only %d commands", len(steps))
	}
	for _, step := range steps {
		command, want, _ := strings.Cut(step, "\n")
		pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(want), "…", "(?s:.*)") + "$"
		if got := run(command); !regexp.MustCompile(pattern).MatchString(got) {
			t.Errorf("$ %s\n%s\nwant\n%s", command, got, want)
		}
	}
}

// TestReadmeSize holds the README to a page or two.
func TestReadmeSize(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSuffix(readDocument(t, "README.md"), "\n"), "\n")
	if len(lines) > 150 {
		t.Errorf("%d lines, more than 150", len(lines))
	}
	for i, line := range lines {
		if n := len([]rune(line)); n > 100 && !strings.HasPrefix(line, "|") {
			t.Errorf("line %d has %d columns, more than 100", i+1, n)
		}
	}
}

// TestReadmeImports checks that the import paths in the README are packages of this
// module that can be imported.
func TestReadmeImports(t *testing.T) {
	t.Parallel()
	paths := regexp.MustCompile(`(?m)^import "(.+)"$`).FindAllStringSubmatch(readDocument(t, "README.md"), -1)
	if len(paths) < 2 {
		t.Fatalf("%d import paths", len(paths))
	}
	for _, m := range paths {
		t.Run(m[1], func(t *testing.T) {
			out, err := exec.Command("go", "list", "-f", "{{.Name}}: {{.Doc}}", m[1]).CombinedOutput()
			if err != nil || strings.HasPrefix(string(out), "main") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

var (
	markdownLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	notInAnchor  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// TestDocumentLinks follows the links of all documents to files and headings of
// this repository.
func TestDocumentLinks(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("git", "-C", filepath.Join("..", ".."), "ls-files", "--cached", "--others", "--exclude-standard", "*.md").Output()
	testkit.NoError(t, err)
	for _, file := range strings.Fields(string(out)) {
		t.Run(file, func(t *testing.T) {
			text := readDocument(t, file)
			for _, m := range markdownLink.FindAllStringSubmatch(text, -1) {
				link, err := url.Parse(m[1])
				if err != nil || link.Scheme != "" {
					continue
				}
				target, linked := file, text
				if link.Path != "" {
					target = filepath.ToSlash(filepath.Join(filepath.Dir(file), filepath.FromSlash(link.Path)))
					info, err := os.Stat(filepath.Join("..", "..", filepath.FromSlash(target)))
					if err != nil {
						t.Errorf("%s: no file %s", m[1], target)
						continue
					}
					if info.IsDir() || link.Fragment == "" {
						continue
					}
					linked = readDocument(t, target)
				}
				if link.Fragment != "" && !hasAnchor(linked, link.Fragment) {
					t.Errorf("%s: no heading in %s", m[1], target)
				}
			}
		})
	}
}

// hasAnchor reports whether a document has a heading with an anchor, as GitHub
// derives them.
func hasAnchor(text, anchor string) bool {
	for line := range strings.Lines(text) {
		heading, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		if !ok || !strings.HasPrefix(line, "#") {
			continue
		}
		name := notInAnchor.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
		if strings.ReplaceAll(name, " ", "-") == anchor {
			return true
		}
	}
	return false
}

// readDocument reads a file, named relative to the top level.
func readDocument(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(file)))
	testkit.NoError(t, err)
	return string(text)
}
