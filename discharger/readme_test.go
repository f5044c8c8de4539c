package discharger_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/testkit"
)

// TestReadmeNamesExist holds the walks of README.md to the code: each file exists,
// and has the functions that are named beside it.
func TestReadmeNamesExist(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	testkit.NoError(t, err)
	rows := regexp.MustCompile(`(?m)^ +(\w+) +(\S+\.go)`).FindAllStringSubmatch(string(text), -1)
	if len(rows) < 30 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		name, file := row[1], row[2]
		t.Run(strings.ReplaceAll(file, "/", "_")+"_"+name, func(t *testing.T) {
			source, err := os.ReadFile(filepath.Join("..", file))
			testkit.NoError(t, err)
			if !regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + name + `[(\[]`).Match(source) {
				t.Errorf("%s has no function %s", file, name)
			}
		})
	}
}
