package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/testkit"
)

// metricName matches the name of a metric, or its prefix.
var metricName = regexp.MustCompile(`\bdischarger_[a-z_]+`)

// TestMetricsInDocuments checks that the program has every metric named in a
// document.
func TestMetricsInDocuments(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	var code strings.Builder
	testkit.NoError(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		code.Write(text)
		return err
	}))
	documents, err := filepath.Glob(filepath.Join(root, "deploy", "*"))
	testkit.NoError(t, err)
	for _, path := range append(documents, filepath.Join(root, "README.md"), filepath.Join(root, "config", "example.yaml")) {
		text, err := os.ReadFile(path)
		testkit.NoError(t, err)
		for _, name := range metricName.FindAllString(string(text), -1) {
			quoted := `"` + name
			if !strings.HasSuffix(name, "_") {
				quoted += `"`
			}
			if !strings.Contains(code.String(), quoted) {
				t.Errorf("%s: metric %s does not exist", filepath.Base(path), name)
			}
		}
	}
}
