package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// metricName matches the name of a metric, and the beginning of some.
var metricName = regexp.MustCompile(`\bdischarger_[a-z_]+`)

// Metrics that the documents name are in the program.
func TestReadmeMetrics(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	var code strings.Builder
	fine(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		code.Write(text)
		return err
	}))
	documents, err := filepath.Glob(filepath.Join(root, "deploy", "*"))
	fine(t, err)
	for _, path := range append(documents, filepath.Join(root, "README.md"), filepath.Join(root, "config", "example.yaml")) {
		text, err := os.ReadFile(path)
		fine(t, err)
		for _, name := range metricName.FindAllString(string(text), -1) {
			quoted := `"` + name
			if !strings.HasSuffix(name, "_") {
				quoted += `"`
			}
			if !strings.Contains(code.String(), quoted) {
				t.Errorf("%s: there is no metric %s", filepath.Base(path), name)
			}
		}
	}
}
