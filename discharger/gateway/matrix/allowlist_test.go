package matrix

import (
	"bytes"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the list of routes into the documentation")

const documentation = "../../../deploy/narrowed-tokens.md"

// The documentation lists the routes of the table. Go test -update writes it.
func TestAllowListIsDocumented(t *testing.T) {
	t.Parallel()
	var list bytes.Buffer
	if err := WriteAllowList(&list); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(documentation)
	if err != nil {
		t.Fatal(err)
	}
	text, old, ok := bytes.Cut(text, []byte("| path |"))
	if !ok {
		t.Fatalf("%s has no table", documentation)
	}
	if *update {
		if err := os.WriteFile(documentation, append(text, list.Bytes()...), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want := list.String(); "| path |"+string(old) != want {
		t.Errorf("%s is out of date: run go test -update", documentation)
	}
}
