package secevent

import (
	"strings"
	"testing"
	"time"
)

// The id of an event never changes: receivers store it.
func TestEventID(t *testing.T) {
	t.Parallel()
	const want = "nPS_3kPsVwLU27AKcpBzdg"
	if got := eventID("a.example", "0hU3kTqv.1790000000000-0"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if eventID("a", "b1") == eventID("ab", "1") {
		t.Error("two events have one id")
	}
}

// Pauses double up to a bound, give or take a half.
func TestPauses(t *testing.T) {
	t.Parallel()
	p := newPauses()
	full := time.Second
	for n := range 100 {
		if d := p.NextBackOff(); d < full/2 || d > full*3/2+1 {
			t.Errorf("pause %d is %v, want about %v", n+1, d, full)
		}
		full = min(2*full, 5*time.Minute)
	}
	p.least = time.Hour
	if d := p.NextBackOff(); d != time.Hour {
		t.Errorf("pause is %v, the receiver demands an hour", d)
	}
}

// A logged code is one that could be registered, or none.
func FuzzRejection(f *testing.F) {
	for _, s := range []string{`{"err":"invalid_key","description":"x"}`, `{"err":"A b"}`, `{"err":""}`, `{}`, `[]`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		code := rejection(body)
		if len(code) > 64 || strings.ContainsFunc(code, notInCode) {
			t.Fatalf("code %q", code)
		}
	})
}

// A demanded pause is never longer than the bound, nor negative.
func FuzzRetryAfter(f *testing.F) {
	now := time.Date(2026, 11, 24, 18, 0, 0, 0, time.UTC)
	for _, s := range []string{"120", "-1", "99999999999", "Tue, 24 Nov 2026 18:10:00 GMT", "Tue, 24 Nov 2020 18:10:00 GMT", "x", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if d := retryAfter(text, now); d < 0 || d > maxRetryAfter {
			t.Fatalf("%v", d)
		}
	})
}
