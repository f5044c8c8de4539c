package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadmeGateway makes sure that the configurations in the README's section
// about the gateway are ones that the program accepts.
func TestReadmeGateway(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	fine(t, err)
	_, section, found := strings.Cut(string(readme), "## In front of a Matrix homeserver\n")
	section, _, end := strings.Cut(section, "\n## ")
	if !found || !end {
		t.Fatal("the README has no section about the gateway")
	}
	program, err := exec.LookPath("discharger")
	fine(t, err)
	checked := 0
	for _, m := range regexp.MustCompile("(?ms)^```yaml\n# (\\S+\\.yaml)\n(.*?)^```$").FindAllStringSubmatch(section, -1) {
		file := filepath.Join(t.TempDir(), m[1])
		fine(t, os.WriteFile(file, []byte(m[2]), 0o600))
		if out, err := exec.Command(program, "config", "check", "--config", file).CombinedOutput(); err != nil || !strings.Contains(string(out), "gateway ") {
			t.Errorf("%s: %v\n%s", m[1], err, out)
		}
		checked++
	}
	if checked != 2 {
		t.Errorf("%d configurations", checked)
	}
	for _, file := range regexp.MustCompile("`(deploy/[^`]+)`").FindAllStringSubmatch(section, -1) {
		if _, err := os.Stat(filepath.Join("..", "..", file[1])); err != nil {
			t.Error(err)
		}
	}
}
