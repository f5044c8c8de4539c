package matrix

import (
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tableRoute is a route in the gateway's table.
type tableRoute struct {
	Method   string `json:"method"`  // empty: every one
	Pattern  string `json:"pattern"` // with identifiers as {name}
	Public   bool   `json:"public"`
	Opaque   bool   `json:"opaque"`
	Limited  bool   `json:"limited"`
	ReadOnly bool   `json:"read_only"`
	InRoom   bool   `json:"in_room"`
}

// gatewayTable returns the table. A program of the main module prints it.
func gatewayTable(t *testing.T) (all []tableRoute) {
	t.Helper()
	out, err := runIn(filepath.Join("..", "..", "..", ".."), "go", "run", absolute(t, "table.go"))
	if err != nil {
		t.Fatal(err)
	}
	for in := json.NewDecoder(strings.NewReader(out)); ; {
		var r tableRoute
		switch err := in.Decode(&r); {
		case err == io.EOF:
			return all
		case err != nil:
			t.Fatal(err)
		}
		all = append(all, r)
	}
}

// allows reports whether the table allows the route for a narrowed token.
func (r tableRoute) allows(how narrowing) bool {
	return r.Limited && (r.ReadOnly || !how.readOnly) && (r.InRoom || !how.inRoom)
}

// holds reports whether the table has a route for a request.
func holds(table []tableRoute, method, path string) bool {
	return slices.ContainsFunc(table, func(r tableRoute) bool {
		return (r.Method == method || r.Method == "") && r.matches(path)
	})
}

func (r tableRoute) matches(path string) bool {
	if below, ok := strings.CutSuffix(r.Pattern, "**"); ok {
		return strings.HasPrefix(path, below)
	}
	pattern, segments := strings.Split(r.Pattern, "/"), strings.Split(path, "/")
	if len(pattern) != len(segments) {
		return false
	}
	for i, p := range pattern {
		if isName := strings.HasPrefix(p, "{"); p != segments[i] && (!isName || segments[i] == "") {
			return false
		}
	}
	return true
}

// method returns a method of the route.
func (r tableRoute) method() string {
	if r.Method == "" {
		return http.MethodPost
	}
	return r.Method
}
