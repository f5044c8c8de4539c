package schema

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// fiveCaveats are the caveats of a macaroon of the schema in the package comment,
// attenuated twice.
func fiveCaveats() []string {
	return []string{
		"time-before 2030-01-02T12:05:00Z",
		"user_id = @alice:example.org",
		"device PHONE",
		"time-before 2030-01-02T12:01:00Z",
		"client-ip 203.0.113.0/24",
	}
}

func commentText(b *testing.B) string {
	text, _ := commentExample(b)
	return text
}

func BenchmarkCheckFive(b *testing.B) {
	checker := checkerOf(b, commentText(b))
	conditions, r := fiveCaveats(), request()
	b.ReportAllocs()
	for b.Loop() {
		if err := checker.Check(b.Context(), conditions, r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckOneUnknown(b *testing.B) {
	checker, r := checkerOf(b, stdFile), request()
	b.ReportAllocs()
	for b.Loop() {
		if err := checker.CheckOne(b.Context(), "is-admin true", r); !errors.Is(err, ErrUnknown) {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheckCostliest evaluates a check just below the cost limit, on the largest
// inputs.
func BenchmarkCheckCostliest(b *testing.B) {
	checker := checkerOf(b, `
format: 1
id: x
context: {scopes: {type: list(string)}}
versions: {v1: {a: {type: string, max_len: 64, check: "scopes.all(s, s.matches('(ab)+'))"}}}
`)
	r := Request{Values: map[string]any{"scopes": slices.Repeat([]string{strings.Repeat("ab", 512)}, 64)}}
	condition := "a " + strings.Repeat("a", 64)
	for b.Loop() {
		if err := checker.CheckOne(b.Context(), condition, r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	text := []byte(commentText(b))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load("bench.yaml", text); err != nil {
			b.Fatal(err)
		}
	}
}
