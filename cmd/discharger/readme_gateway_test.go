package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestReadmeGateway makes sure that the configurations in the README's section
// about the gateway are ones that the program accepts.
func TestReadmeGateway(t *testing.T) {
	t.Parallel()
	section := documentSection(t, "README.md", "## In front of a Matrix homeserver", "## ")
	if n := checkConfigurations(t, section, "gateway "); n != 2 {
		t.Errorf("%d configurations", n)
	}
	for _, file := range regexp.MustCompile("`(deploy/[^`]+)`").FindAllStringSubmatch(section, -1) {
		if _, err := os.Stat(filepath.Join("..", "..", file[1])); err != nil {
			t.Error(err)
		}
	}
}
