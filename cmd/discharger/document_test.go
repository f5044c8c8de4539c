package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/testkit"
)

// documentSection returns the text of a document between a heading and the first
// later line that begins with until. The file is relative to the top level.
func documentSection(t *testing.T, file, heading, until string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(file)))
	testkit.NoError(t, err)
	_, section, found := strings.Cut(string(text), heading+"\n")
	section, _, end := strings.Cut(section, "\n"+until)
	if !found || !end {
		t.Fatalf("%s has no section %q", file, heading)
	}
	return section
}

// checkConfigurations runs "config check" on the configurations of a section and
// returns their number. The output must contain a text.
func checkConfigurations(t *testing.T, section, output string) (checked int) {
	t.Helper()
	program, err := exec.LookPath("discharger")
	testkit.NoError(t, err)
	for _, m := range regexp.MustCompile("(?ms)^```yaml\n# (\\S+\\.yaml)\n(.*?)^```$").FindAllStringSubmatch(section, -1) {
		file := filepath.Join(t.TempDir(), m[1])
		testkit.NoError(t, os.WriteFile(file, []byte(m[2]), 0o600))
		check := exec.Command(program, "config", "check", "--config", file)
		check.Env = append(os.Environ(), "REDIS_PASSWORD=secret")
		if out, err := check.CombinedOutput(); err != nil || !strings.Contains(string(out), output) {
			t.Errorf("%s: %v\n%s", m[1], err, out)
		}
		checked++
	}
	return checked
}

// TestRedisInTheOperatorsGuide checks that the program accepts the configurations
// in the section about Redis, and that the ACL there has the commands that the tests
// of the store run with.
func TestRedisInTheOperatorsGuide(t *testing.T) {
	t.Parallel()
	section := documentSection(t, "deploy/README.md", "## Redis", "## ")
	if n := checkConfigurations(t, section, "Redis at"); n != 2 {
		t.Errorf("%d configurations", n)
	}
	if want := "ACL SETUSER discharger on >PASSWORD ~ds{* " + redistest.Commands + " " + redistest.Checks + "\n"; !strings.Contains(section, want) {
		t.Errorf("missing line: %s", want)
	}
}
