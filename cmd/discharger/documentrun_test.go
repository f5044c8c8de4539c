package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/secevent"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

var fenced = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")

// runDocument writes the YAML blocks of a document that begin with a comment with
// their name, and runs the lines of its sh blocks, which must succeed, and the
// commands of its text blocks that begin with $, whose output must be the rest of
// the block. It returns the text of the document and the number of commands.
func runDocument(t *testing.T, file string) (text string, commands int) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(file)))
	testkit.NoError(t, err)
	dir := t.TempDir()
	run := func(line string) (string, error) {
		commands++
		command, _, _ := strings.Cut(line, " #")
		args := strings.Fields(command)
		if args[0] != "discharger" {
			t.Fatalf("not a command of the program: %s", line)
		}
		program, err := exec.LookPath(args[0])
		testkit.NoError(t, err)
		cmd := exec.Command(program, args[1:]...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	blocks := fenced.FindAllStringSubmatch(string(data), -1)
	for _, b := range blocks {
		if name, _, ok := strings.Cut(strings.TrimPrefix(b[2], "# "), "\n"); b[1] == "yaml" && ok {
			testkit.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(b[2]), 0o600))
		}
	}
	for _, b := range blocks {
		switch {
		case b[1] == "sh":
			for line := range strings.Lines(b[2]) {
				if out, err := run(line); err != nil || out == "" {
					t.Errorf("%s: %v\n%s", line, err, out)
				}
			}
		case b[1] == "text" && strings.HasPrefix(b[2], "$ "):
			line, want, _ := strings.Cut(b[2][2:], "\n")
			if out, _ := run(line); out != want {
				t.Errorf("%s\ngot\n%s\nwant\n%s", line, out, want)
			}
		}
	}
	return string(data), commands
}

// TestSecurityEventsDocument runs the commands of the document, and checks that it
// has the names of the protocol.
func TestSecurityEventsDocument(t *testing.T) {
	t.Parallel()
	text, commands := runDocument(t, "deploy/security-events.md")
	if commands != 3 {
		t.Errorf("%d commands", commands)
	}
	if n := checkConfigurations(t, text, "events of    example.org to https://receiver.example"); n != 1 {
		t.Errorf("%d configurations", n)
	}
	for _, name := range []string{secevent.EventSessionRevoked, secevent.MemberExcept, secevent.MemberDevices, secevent.MemberKind, wire.PathJWKS} {
		if !strings.Contains(text, name) {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestSchemaDocument(t *testing.T) {
	t.Parallel()
	if _, commands := runDocument(t, "policy/schema/README.md"); commands != 6 {
		t.Errorf("%d commands", commands)
	}
}
