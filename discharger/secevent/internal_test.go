package secevent

import (
	"strings"
	"testing"
	"time"
)

// The id of an event is for ever: receivers remember it.
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

// Pauses double up to a bound, and are never less than half of that.
func TestPause(t *testing.T) {
	t.Parallel()
	for _, jitter := range []float64{0, 0.5, 1} {
		c := &courier{cfg: &Config{Jitter: func() float64 { return jitter }}}
		full := time.Second
		for n := 1; n < 100; n++ {
			if d := c.pause(n); d < full/2 || d > full || jitter == 1 && d != full {
				t.Errorf("after %d failures and with %v, it is %v", n, jitter, d)
			}
			full = min(2*full, 5*time.Minute)
		}
	}
}

// What is said of a reply is a code that could be registered, or nothing.
func FuzzRefusal(f *testing.F) {
	for _, s := range []string{`{"err":"invalid_key","description":"x"}`, `{"err":"A b"}`, `{"err":""}`, `{}`, `[]`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		code := refusal(body)
		if len(code) > 64 || strings.ContainsFunc(code, notInCode) {
			t.Fatalf("code %q", code)
		}
	})
}

// A wish to be left alone is never for longer than the bound, nor negative.
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
