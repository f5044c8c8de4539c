package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/store/redistest"
)

// readmeSection is what stands in the README between a heading and the
// beginning of a line.
func readmeSection(t *testing.T, heading, until string) string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	fine(t, err)
	_, section, found := strings.Cut(string(readme), heading+"\n")
	section, _, end := strings.Cut(section, "\n"+until)
	if !found || !end {
		t.Fatalf("the README has no section %q", heading)
	}
	return section
}

// checkConfigurations has the program check the configurations of a section,
// and returns how many there are. What it says has to contain something.
func checkConfigurations(t *testing.T, section, says string) (checked int) {
	t.Helper()
	program, err := exec.LookPath("discharger")
	fine(t, err)
	for _, m := range regexp.MustCompile("(?ms)^```yaml\n# (\\S+\\.yaml)\n(.*?)^```$").FindAllStringSubmatch(section, -1) {
		file := filepath.Join(t.TempDir(), m[1])
		fine(t, os.WriteFile(file, []byte(m[2]), 0o600))
		check := exec.Command(program, "config", "check", "--config", file)
		check.Env = append(os.Environ(), "REDIS_PASSWORD=secret")
		if out, err := check.CombinedOutput(); err != nil || !strings.Contains(string(out), says) {
			t.Errorf("%s: %v\n%s", m[1], err, out)
		}
		checked++
	}
	return checked
}

// TestReadmeStores makes sure that the configurations in the README's section
// about stores are ones that the program accepts, and that the user it describes
// may do what the tests of the store do as such a user.
func TestReadmeStores(t *testing.T) {
	t.Parallel()
	section := readmeSection(t, "### Which store, at which size", "### ")
	if n := checkConfigurations(t, section, "Redis at"); n != 2 {
		t.Errorf("%d configurations", n)
	}
	if want := "ACL SETUSER discharger on >PASSWORD ~ds{* " + redistest.Commands + " " + redistest.Checks + "\n"; !strings.Contains(section, want) {
		t.Errorf("the README does not have this line: %s", want)
	}
}
