package main_test

import (
	"maps"
	"slices"
	"testing"
)

// maxFiles is how many files a package may have, tests not counted.
const maxFiles = 15

// large has the packages that are to be divided, with the number of their files.
// A package may leave this table, and no package may enter it.
var large = map[string]int{}

// TestPackageSizes bounds the number of files in a package.
func TestPackageSizes(t *testing.T) {
	t.Parallel()
	files := make(map[string]map[string]bool)
	for _, i := range imports(t) {
		if i.inTest {
			continue
		}
		if files[i.pkg] == nil {
			files[i.pkg] = make(map[string]bool)
		}
		files[i.pkg][i.file] = true
	}
	for _, pkg := range slices.Sorted(maps.Keys(files)) {
		n, most := len(files[pkg]), max(maxFiles, large[pkg])
		if n > most {
			t.Errorf("package %s has %d files, at most %d are allowed", pkg, n, most)
		}
		if large[pkg] > 0 && n <= maxFiles {
			t.Errorf("package %s has %d files: its row in large is to be removed", pkg, n)
		}
	}
	for pkg := range large {
		if files[pkg] == nil {
			t.Errorf("package %s does not exist: its row in large is to be removed", pkg)
		}
	}
}
