package testkit

import (
	"fmt"
	"strings"
	"testing"

	"gopkg.in/macaroon.v2"
)

// Bundle returns an access macaroon with n third-party caveats, and a bound
// discharge for each.
func Bundle(t testing.TB, n int, location string) macaroon.Slice {
	t.Helper()
	access, err := macaroon.New([]byte("root"), []byte("alice"), location, macaroon.V2)
	if err != nil {
		t.Fatal(err)
	}
	s := macaroon.Slice{access}
	for i := range n {
		key, id := fmt.Appendf(nil, "key %d", i), fmt.Appendf(nil, "caveat %d %s", i, strings.Repeat("x", 100*i))
		if err := access.AddThirdPartyCaveat(key, id, location); err != nil {
			t.Fatal(err)
		}
		d, err := macaroon.New(key, id, "", macaroon.V2)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.AddFirstPartyCaveat([]byte("time-before 2026-11-24T10:05:00Z")); err != nil {
			t.Fatal(err)
		}
		s = append(s, d)
	}
	if err := access.AddFirstPartyCaveat([]byte("client-ip 192.0.2.7")); err != nil {
		t.Fatal(err)
	}
	for _, d := range s[1:] {
		d.Bind(access.Signature())
	}
	return s
}
