package check_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/discharger/discharger/policy/rules"
)

// load loads one rule file.
func load(t testing.TB, text string) (*rules.Set, error) {
	t.Helper()
	return rules.Load(rules.Config{FS: fstest.MapFS{"p.yaml": {Data: []byte(text)}}, Files: []string{"p.yaml"}, Offline: true, OnlyFiles: true})
}

func mustLoad(t testing.TB, text string) *rules.Set {
	t.Helper()
	set, err := load(t, text)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return set
}

// rule returns a file with one rule and this condition.
func rule(when string) string {
	return "version: 1\nnetworks: {office: [192.0.2.0/24]}\nlists: {admins: [\"@alice:example.org\"]}\npolicies:\n  p:\n    rules:\n      - name: r\n        when: " +
		when + "\n        then: deny\n    otherwise: allow\n"
}

// written returns the output of WriteTo.
func written(t testing.TB, w io.WriterTo) string {
	t.Helper()
	var b strings.Builder
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// same compares texts line by line.
func same(t *testing.T, got, want string) {
	t.Helper()
	want = strings.TrimPrefix(want, "\n")
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// counter counts the calls of LiveSessions.
type counter struct{ calls int }

func (c *counter) LiveSessions(context.Context) (int, error) {
	c.calls++
	return 5, nil
}
