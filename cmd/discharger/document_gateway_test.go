package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestGatewayDocument makes sure that the configurations in the gateway's document
// about the gateway are ones that the program accepts.
func TestGatewayDocument(t *testing.T) {
	t.Parallel()
	section := documentSection(t, "deploy/gateway.md", "# The gateway in front of a Matrix homeserver", "It is not for a Synapse")
	if n := checkConfigurations(t, section, "gateway "); n != 2 {
		t.Errorf("%d configurations", n)
	}
	for _, file := range regexp.MustCompile("`(deploy/[^`]+)`").FindAllStringSubmatch(section, -1) {
		if _, err := os.Stat(filepath.Join("..", "..", file[1])); err != nil {
			t.Error(err)
		}
	}
}
