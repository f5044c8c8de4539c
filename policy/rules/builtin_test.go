package rules_test

import (
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/discharger/discharger/policy/check"
	"github.com/discharger/discharger/policy/rules"
)

func TestBuiltinPoliciesPassTheirTests(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(rules.Builtin(), "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	set, err := rules.Load(rules.Config{FS: rules.Builtin(), Files: files})
	if err != nil {
		t.Fatal(err)
	}
	if w := set.Warnings(); len(w) > 0 {
		t.Errorf("built-in policies have warnings:\n%v", w.Error())
	}
	report := check.Tests(set)
	var out strings.Builder
	if _, err := report.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	if report.Failed() > 0 || len(report.Results) < 30 {
		t.Errorf("tests of built-in policies:\n%s", out.String())
	}
	for _, c := range report.Coverage {
		for _, rule := range c.Missed {
			t.Errorf("rule %s/%s decides no test", c.Policy, rule)
		}
	}
	for _, name := range set.Names() {
		if set.Doc(name) == "" {
			t.Errorf("policy %s has no doc", name)
		}
	}
	want := []string{"bots", "default", "guest", "kiosk", "limits", "strict"}
	if got := set.Names(); !slices.Equal(got, want) {
		t.Errorf("built-in policies are %v, want %v", got, want)
	}
}
