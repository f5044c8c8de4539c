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

// TestReadmeStores makes sure that the configurations in the README's section
// about stores are ones that the program accepts, and that the user it describes
// may do what the tests of the store do as such a user.
func TestReadmeStores(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	fine(t, err)
	_, section, found := strings.Cut(string(readme), "### Which store, at which size\n")
	section, _, end := strings.Cut(section, "\n### ")
	if !found || !end {
		t.Fatal("the README has no section about stores")
	}
	program, err := exec.LookPath("discharger")
	fine(t, err)
	checked := 0
	for _, m := range regexp.MustCompile("(?ms)^```yaml\n# (\\S+\\.yaml)\n(.*?)^```$").FindAllStringSubmatch(section, -1) {
		file := filepath.Join(t.TempDir(), m[1])
		fine(t, os.WriteFile(file, []byte(m[2]), 0o600))
		check := exec.Command(program, "config", "check", "--config", file)
		check.Env = append(os.Environ(), "REDIS_PASSWORD=secret")
		if out, err := check.CombinedOutput(); err != nil || !strings.Contains(string(out), "Redis at") {
			t.Errorf("%s: %v\n%s", m[1], err, out)
		}
		checked++
	}
	if checked != 2 {
		t.Errorf("%d configurations", checked)
	}
	if want := "ACL SETUSER discharger on >PASSWORD ~ds{* " + redistest.Commands + " " + redistest.Checks + "\n"; !strings.Contains(section, want) {
		t.Errorf("the README does not have this line: %s", want)
	}
}
