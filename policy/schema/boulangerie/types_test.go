package boulangerie

import (
	"errors"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/policy/schema"
)

// TestRubyValues tests the limits of the types in Ruby.
func TestRubyValues(t *testing.T) {
	t.Parallel()
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	big64, _ := new(big.Int).SetString("123456789012345678901234567890", 10)
	number := func(n int64) *big.Int { return big.NewInt(n) }
	tests := map[string]map[string]any{ // nil for text that does not parse
		"Atom": {
			"foobar": "foobar", "foo-bar-baz": "foo-bar-baz", "foo_bar_baz": "foo_bar_baz",
			"aad7d05a-8699-49d8-9dd2-79f3bf2f7d58": "aad7d05a-8699-49d8-9dd2-79f3bf2f7d58",
			"macaroons.io":                         "macaroons.io", "github.com": "github.com", "/foo/bar/baz": "/foo/bar/baz", "42": "42",
			"BADA55": "BADA55", "mjqxgzjtgi": "mjqxgzjtgi", "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy": "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
			"YmFzZTY0dXJsMDAwXx_32-ab": "YmFzZTY0dXJsMDAwXx_32-ab",
			"not legit!":               nil, "": nil, "a b": nil, "a:b": nil, "@alice:example.org": nil, "é": nil, "a\n": nil, "\xff": nil,
		},
		"Binary":  {"AAAA": "AAAA", "": "", "\x00\xff": "\x00\xff", "a\nb": nil},
		"Boolean": {"true": true, "false": false, "True": nil, "1": nil, "": nil, "true ": nil},
		"Decimal": {
			"42": number(42), "-2": number(-2), "+7": number(7), "003": number(3), "1_0": number(10), " 5\t": number(5),
			"0d9": number(9), "-0D9": number(-9), "0_8": number(8), "123456789012345678901234567890": big64,
			"": nil, "bogus": nil, "1e3": nil, "4.2": nil, "0x10": nil, "1__0": nil, "_1": nil, "1_": nil, "+ 1": nil, "0d": nil, "--1": nil, "0d_1": nil,
		},
		"DateTime": {
			"2016-01-10T00:00:00Z":            at("2016-01-10T00:00:00Z"),
			"2016-01-10t00:00:00z":            at("2016-01-10T00:00:00Z"),
			" 2016-01-10T00:00:00Z\n":         nil, // no value has a line feed
			" 2016-01-10T00:00:00Z\t":         at("2016-01-10T00:00:00Z"),
			"2016-01-10T00:00:00":             at("2016-01-10T00:00:00Z"),
			"2016-01-10T00:00:00.25Z":         at("2016-01-10T00:00:00.25Z"),
			"2016-01-10T00:00:00.1234567899Z": at("2016-01-10T00:00:00.123456789Z"),
			"2016-01-10T24:00:00Z":            at("2016-01-11T00:00:00Z"),
			"2016-12-31T23:59:60Z":            at("2017-01-01T00:00:00Z"),
			"2016-02-30T00:00:00Z":            at("2016-03-01T00:00:00Z"),
			"2015-02-30T00:00:00Z":            at("2015-03-02T00:00:00Z"),
			"2016-01-10T00:00:00+01":          at("2016-01-09T23:00:00Z"),
			"2016-01-10T00:00:00+0130":        at("2016-01-09T22:30:00Z"),
			"2016-01-10T00:00:00+01:30":       at("2016-01-09T22:30:00Z"),
			"2016-01-01T00:00:00+00:01":       at("2015-12-31T23:59:00Z"),
			"2016-01-31T23:30:00-01:30":       at("2016-02-01T01:00:00Z"),
			"2016-12-31T23:30:00-01:30":       at("2017-01-01T01:00:00Z"),
			"2016-02-29T23:30:00-00:30":       at("2016-03-01T00:00:00Z"),
			"2016-03-01T00:00:00+99:99":       at("2016-02-29T19:21:00Z"), // Ruby stops at the end of the month
			"-0001-01-01T00:00:00Z":           time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC),
			"12016-01-01T00:00:00Z":           time.Date(12016, 1, 1, 0, 0, 0, 0, time.UTC),
			"":                                nil, "not legit!": nil, "2016-01-10": nil, "2016-01-10 00:00:00Z": nil, "2016-13-10T00:00:00Z": nil,
			"2016-00-10T00:00:00Z": nil, "2016-01-32T00:00:00Z": nil, "2016-01-00T00:00:00Z": nil, "2016-01-10T25:00:00Z": nil,
			"2016-01-10T24:00:01Z": nil, "2016-01-10T00:60:00Z": nil, "2016-01-10T00:00:61Z": nil, "2016-1-10T00:00:00Z": nil,
			"2016-01-10T00:00:00,5Z": nil, "2016-01-10T00:00:00UTC": nil, "1000000000-01-01T00:00:00Z": nil,
			"2016-01-10T00:00:00." + strings.Repeat("0", 300) + "Z": nil,
		},
		"URI": {
			"so.generic:thing": "so.generic:thing", "https://www.example.com": "https://www.example.com", "": "", "relative/path": "relative/path",
			"//host/path": "//host/path", "?q": "?q", "#f": "#f", "http://u:p@[::1]:80/a?b c#d": "http://u:p@[::1]:80/a?b c#d",
			"http://[v1.x]/": "http://[v1.x]/", "http://:80": "http://:80", "a/b:c": "a/b:c", "mailto:a@b": "mailto:a@b", "mailto:a@b,c@d;": "mailto:a@b,c@d;",
			"mailto:?subject=x": "mailto:?subject=x", "ftp://h/p": "ftp://h/p", "ldap://h/dn?x": "ldap://h/dn?x", "a%20b": "a%20b",
			"not legit!": nil, "é": nil, "a%2": nil, "http://h:8x/": nil, "http://[::1": nil, "http://[::1%25eth0]/": nil, "1a:b": nil, "http://a@b@c/": nil,
			"http://h/#a#b": nil, "http://a[b@c/": nil, "mailto:": nil, "mailto:bob": nil, "mailto:a@b@c": nil, "ftp:p": nil, "ldap://h/dn#f": nil, "ldap:dn": nil, "a\\b": nil,
		},
		"List(Boolean)":  {"true false true": []any{true, false, true}, " true  false ": []any{true, false}, "": []any{}, "true maybe": nil},
		"List(Atom)":     {"a b/c d": []any{"a", "b/c", "d"}, "a\tb": []any{"a", "b"}, "a b!": nil},
		"List(Decimal)":  {"1 -2 003": []any{number(1), number(-2), number(3)}, "1 x": nil},
		"List(URI)":      {"https://www.example.com so.generic:thing": []any{"https://www.example.com", "so.generic:thing"}},
		"List(DateTime)": {"2016-01-10T00:00:00Z 2016-01-10T00:01:00Z": []any{at("2016-01-10T00:00:00Z"), at("2016-01-10T00:01:00Z")}},
	}
	for typeName, values := range tests {
		loaded := mustLoad(t, "schema-id: 7dc57277e5b399ac\npredicates: {v0: {x: "+typeName+"}}")
		for _, text := range slices.Sorted(maps.Keys(values)) {
			got, err := loaded.Parse("x: " + text)
			switch want := values[text]; {
			case want == nil && !errors.Is(err, schema.ErrMalformed):
				t.Errorf("%s %q: got %v, %v", typeName, text, got.Value, err)
			case want != nil && (err != nil || !reflect.DeepEqual(got.Value, want)):
				t.Errorf("%s %q: got %v, %v, want %v", typeName, text, got.Value, err, want)
			}
		}
	}
}

// TestRubyMonthZero tests months that do not exist, which Ruby accepts with some
// offsets.
func TestRubyMonthZero(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Time{
		"2016-00-31T23:30:00-01:00": time.Date(2016, 1, 1, 0, 30, 0, 0, time.UTC),
		"2016-13-01T00:30:00+01:00": time.Date(2016, 12, 31, 23, 30, 0, 0, time.UTC),
		"2016-01-01T12:99:00+00:30": time.Date(2016, 1, 1, 13, 9, 0, 0, time.UTC),
	} {
		got, err := parseDateTime(text)
		if err != nil || !got.(time.Time).Equal(want) {
			t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
		}
	}
	if got, err := parseDateTime("2016-01-31T23:99:00+00:30"); err == nil {
		t.Errorf("the 32nd of January is %v", got)
	}
}
