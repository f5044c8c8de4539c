package schema

import (
	"errors"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestValues parses values of every type of format 1; nil: the text does not parse.
func TestValues(t *testing.T) {
	t.Parallel()
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	utc := func(year, month, day, hour, minute, second, nano int) time.Time {
		return time.Date(year, time.Month(month), day, hour, minute, second, nano, time.UTC)
	}
	tests := map[string]map[string]any{
		"string": {"text": "text", " spaces  inside ": " spaces  inside ", "ü": "ü", "": nil, "a\nb": nil, "a\x00": nil, "\x7f": nil, "\u0085": nil, "\xff": nil},
		"atom":   {"a/b.c-d_9": "a/b.c-d_9", "": nil, "a b": nil, "a:b": nil, "ü": nil},
		"bool":   {"true": true, "false": false, "": nil, "True": nil, "1": nil, "true ": nil},
		"int": {"0": int64(0), "-1": int64(-1), "9223372036854775807": int64(1<<63 - 1), "-9223372036854775808": int64(-1 << 63),
			"9223372036854775808": nil, "": nil, "+1": nil, "01": nil, "-0": nil, "1_0": nil, "1.0": nil, "0x1": nil, " 1": nil},
		"time": {"2030-01-02T15:04:05Z": utc(2030, 1, 2, 15, 4, 5, 0), "2030-01-02T15:04:05.000000006Z": utc(2030, 1, 2, 15, 4, 5, 6),
			"2030-01-02T15:04:05+02:00": utc(2030, 1, 2, 13, 4, 5, 0), "9999-12-31T23:59:59Z": utc(9999, 12, 31, 23, 59, 59, 0),
			"": nil, "2030-01-02": nil, "2030-01-02T15:04:05": nil, "2030-01-02 15:04:05Z": nil, "2030-02-30T00:00:00Z": nil, "2030-01-02T24:00:00Z": nil,
			"2030-01-02T15:04:05,5Z": nil, "2030-01-02T15:04:05.Z": nil, "2030-01-02T5:04:05Z": nil, "2030-01-02T15:04:60Z": nil, "0000-01-01T00:00:00Z": nil,
			"9999-12-31T23:59:59-01:00": nil, "0001-01-01T00:00:00+01:00": nil, "2030-01-02T15:04:05+24:00": nil},
		"time_ms": {"0": utc(1970, 1, 1, 0, 0, 0, 0), "1893596645001": utc(2030, 1, 2, 15, 4, 5, 1e6), "253402300799999": utc(9999, 12, 31, 23, 59, 59, 999e6),
			"": nil, "-1": nil, "253402300800000": nil, "9223372036854775807": nil, "1e3": nil, "1.5": nil},
		"duration": {"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "0": time.Duration(0), "1.5s": 1500 * time.Millisecond,
			"": nil, "-1s": nil, "+1s": nil, "-0s": nil, "1": nil, "1d": nil, "9999999h": nil},
		"ip": {"203.0.113.7": addr("203.0.113.7"), "::1": addr("::1"), "2001:DB8::1": addr("2001:db8::1"), "::ffff:1.2.3.4": addr("1.2.3.4"),
			"": nil, "1.2.3": nil, "01.2.3.4": nil, "fe80::1%eth0": nil, "[::1]": nil, "1.2.3.4/32": nil, "::ffff:1.2.3.4%eth0": nil},
		"network": {"203.0.113.7": prefix("203.0.113.7/32"), "203.0.113.7/24": prefix("203.0.113.0/24"), "0.0.0.0/0": prefix("0.0.0.0/0"),
			"::1": prefix("::1/128"), "2001:db8::5/32": prefix("2001:db8::/32"), "::ffff:10.1.2.3": prefix("10.1.2.3/32"), "::ffff:10.1.2.3/104": prefix("10.0.0.0/8"),
			"::ffff:0.0.0.0/96": prefix("0.0.0.0/0"), "": nil, "1.2.3.4/33": nil, "1.2.3.4/": nil, "1.2.3.4/08": nil, "1.2.3.4/+8": nil,
			"::ffff:1.2.3.4/64": nil, "fe80::1%eth0/64": nil, "/8": nil},
		"uri": {"https://example.org/a?b#c": "https://example.org/a?b#c", "urn:isbn:1": "urn:isbn:1", "": nil, "relative": nil, "//host": nil, "http://a/?b c": nil,
			"http://a/\x7f": nil, "http://ü/": nil, "1a:b": nil},
		"user_id": {"@alice:example.org": "@alice:example.org", "@a=b/c+:h:8448": "@a=b/c+:h:8448", "@A!:[::1]:80": "@A!:[::1]:80", "@x:1.2.3.4": "@x:1.2.3.4",
			"": nil, "alice:example.org": nil, "@alice": nil, "@:example.org": nil, "@a:": nil, "@a:b:": nil, "@a:b:c": nil, "@a:b:123456": nil, "@a b:c": nil, "@a:[::1": nil,
			"@a:[1.2.3.4]": nil, "@a:[fe80::1%25x]": nil, "@a:b_c": nil, "@ü:c": nil, "@" + strings.Repeat("a", 250) + ":b.cd": nil},
		"list(atom)":    {"a": []any{"a"}, "a b": []any{"a", "b"}, "": nil, "a  b": nil, " a": nil, "a ": nil, "a\tb": nil, "a b!": nil},
		"list(int)":     {"1 -2": []any{int64(1), int64(-2)}, "1 x": nil},
		"list(network)": {"1.2.3.4 10.0.0.0/8": []any{prefix("1.2.3.4/32"), prefix("10.0.0.0/8")}},
	}
	for name, values := range tests {
		t.Run(name, func(t *testing.T) {
			schema := mustLoad(t, one("type: "+name+", max_len: 300, check: value == value"))
			for _, text := range slices.Sorted(maps.Keys(values)) {
				got, err := schema.Parse("a " + text)
				switch want := values[text]; {
				case want == nil && !errors.Is(err, ErrMalformed):
					t.Errorf("%q: got %v, %v", text, got.Value, err)
				case want != nil && (err != nil || !reflect.DeepEqual(got, Condition{Name: "a", Value: want})):
					t.Errorf("%q: got %v, %v, want %v", text, got.Value, err, want)
				}
			}
		})
	}
}

// TestEveryExample parses and checks the example of each type in the reference.
func TestEveryExample(t *testing.T) {
	t.Parallel()
	checker := everyType(t)
	for _, c := range checker.schema.caveats {
		r := Request{Now: time.Date(2030, 1, 2, 3, 0, 0, 0, time.UTC)}
		if err := checker.CheckOne(t.Context(), c.example, r); err != nil {
			t.Errorf("%s: %v", c.example, err)
		}
	}
}

// TestStyles writes one caveat in each style, and each in the others'.
func TestStyles(t *testing.T) {
	t.Parallel()
	texts := map[string]string{"cond arg": "a 5", "key = value": "a = 5", "key < value": "a < 5", "name: value": "a: 5"}
	for style, good := range texts {
		schema := mustLoad(t, one("type: int, style: '"+style+"', check: value == 5"))
		for _, text := range texts {
			_, err := schema.Parse(text)
			if (err == nil) != (text == good) {
				t.Errorf("%s in style %s: %v", text, style, err)
			}
		}
	}
}

// TestCheckTypes evaluates a check with a value of every type.
func TestCheckTypes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string][2]string{
		"flag":           {"value", "a"},
		"string":         {"value.startsWith('te')", "a text"},
		"atom":           {"value in ['b', 'c']", "a c"},
		"bool":           {"!value", "a false"},
		"int":            {"value + 1 == 43", "a 42"},
		"time":           {"value - now == duration('1h')", "a 2030-01-02T13:00:00Z"},
		"time_ms":        {"value == timestamp('2030-01-02T15:04:05Z')", "a 1893596645000"},
		"duration":       {"value == duration('90m')", "a 1h30m"},
		"ip":             {"value.family() == 4 && value == ip", "a 203.0.113.7"},
		"network":        {"value.prefixLength() == 24 && cidr('203.0.0.0/16').containsCIDR(value)", "a 203.0.113.9/24"},
		"uri":            {"value.startsWith('https://')", "a https://example.org"},
		"user_id":        {"value.endsWith(':example.org')", "a @alice:example.org"},
		"list(atom)":     {"value.exists(v, v == 'b') && size(value) == 2", "a a b"},
		"list(ip)":       {"ip in value", "a ::1 203.0.113.7"},
		"list(time)":     {"value.all(v, now < v)", "a 2031-01-01T00:00:00Z 2032-01-01T00:00:00Z"},
		"list(duration)": {"value[0] < value[1]", "a 1s 2s"},
	} {
		t.Run(name, func(t *testing.T) {
			checker := checkerOf(t, one("type: "+name+`, check: "`+tt[0]+`"`))
			if err := checker.CheckOne(t.Context(), tt[1], request()); err != nil {
				t.Error(err)
			}
		})
	}
}
