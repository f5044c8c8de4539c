package yamlfile

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Text decodes a string of at most most bytes.
func (d *Document) Text(n *Node, path string, most int) (string, bool) {
	switch {
	case n == nil:
	case !isText(n):
		d.Mistyped(n, path, "a string")
	case len(n.Value) > most:
		d.Invalid(n, path, "want at most %d bytes, got %d", most, len(n.Value))
	default:
		d.noAnchor(n, path)
		return n.Value, true
	}
	return "", false
}

// Bool decodes true or false.
func (d *Document) Bool(n *Node, path string) bool {
	switch {
	case n == nil:
	case !isScalar(n, "!!bool"):
		d.Mistyped(n, path, "true or false")
	default:
		d.noAnchor(n, path)
		return strings.EqualFold(n.Value, "true")
	}
	return false
}

// Int decodes a whole number from least to most, in decimal and without a leading zero
// or plus sign: the other ways of YAML mean different numbers to different readers.
func (d *Document) Int(n *Node, path string, least, most int) (int, bool) {
	if n == nil {
		return 0, false
	}
	v, err := strconv.Atoi(n.Value)
	switch {
	case !isScalar(n, "!!int") || err != nil || strconv.Itoa(v) != n.Value:
		d.Mistyped(n, path, "a whole number")
	case least == most && v != least:
		d.Invalid(n, path, "want %d, got %d", least, v)
	case v < least || v > most:
		d.Invalid(n, path, "want %d to %d, got %d", least, most, v)
	default:
		d.noAnchor(n, path)
		return v, true
	}
	return 0, false
}

// Raw decodes a value of any type as the text it was written as; want describes it.
func (d *Document) Raw(n *Node, path, want string) (string, bool) {
	switch {
	case n == nil:
	case n.Kind != yaml.ScalarNode || tagged(n) || IsNull(n):
		d.Mistyped(n, path, want)
	default:
		d.noAnchor(n, path)
		return n.Value, true
	}
	return "", false
}

// Duration decodes a duration from least to most, in the form of [ParseDuration].
func (d *Document) Duration(n *Node, path string, least, most time.Duration) (time.Duration, bool) {
	v, ok := parsed(d, n, path, durationForm, ParseDuration)
	if ok && (v < least || v > most) {
		d.Invalid(n, path, "want %s to %s, got %s", least, most, v)
		return 0, false
	}
	return v, ok
}

// Prefix decodes an address or a network, in the form of [ParsePrefix].
func (d *Document) Prefix(n *Node, path string) (netip.Prefix, bool) {
	return parsed(d, n, path, prefixForm, ParsePrefix)
}

// parsed decodes a value with a form of its own.
func parsed[T any](d *Document, n *Node, path, form string, parse func(string) (T, error)) (v T, ok bool) {
	text, ok := d.Raw(n, path, form)
	if !ok {
		return v, false
	}
	v, err := parse(text)
	if err != nil {
		d.Invalid(n, path, "%v", err)
	}
	return v, err == nil
}

// OneOf decodes one of some names.
func (d *Document) OneOf(n *Node, path string, names ...string) (string, bool) {
	want := strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
	text, ok := d.Raw(n, path, want)
	if ok && !slices.Contains(names, text) {
		d.Invalid(n, path, "want %s, got %s%s", want, describe(n), Suggest(text, names))
		return "", false
	}
	return text, ok
}

// The forms of values in messages.
const (
	durationForm = "a duration such as 90s, 5m, 12h or 30d"
	prefixForm   = "an address or a network such as 192.0.2.0/24"
)

// ParseDuration parses a duration in the form of [time.ParseDuration], before
// which a number of days, of 24 hours each, may stand: 90s, 1h30m, 90d, 1d12h.
func ParseDuration(s string) (time.Duration, error) {
	rest, sign := strings.TrimPrefix(s, "+"), time.Duration(1)
	if after, ok := strings.CutPrefix(s, "-"); ok {
		rest, sign = after, -1
	}
	var days time.Duration
	if number, after, ok := strings.Cut(rest, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return 0, notDuration(s)
		}
		days, rest = time.Duration(n)*24*time.Hour, after
		if rest == "" {
			return sign * days, nil
		}
	}
	if rest == "" || rest[0] == '-' || rest[0] == '+' {
		return 0, notDuration(s)
	}
	d, err := time.ParseDuration(rest)
	if err != nil || days+d < days {
		return 0, notDuration(s)
	}
	return sign * (days + d), nil
}

func notDuration(s string) error {
	if _, err := strconv.Atoi(s); err == nil {
		return fmt.Errorf("want %s, got %s; write %ss for seconds", durationForm, s, s)
	}
	return fmt.Errorf("want %s, got %q", durationForm, Shorten(s))
}

// ParsePrefix parses a network in CIDR form, or an address, which is a network of
// itself. An IPv4 address in IPv6 form becomes IPv4. Errors are a zone, address bits
// beyond the network's length, and a network of IPv4 addresses in IPv6 form.
func ParsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("want %s, got %q", prefixForm, Shorten(s))
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("want IPv4 networks in IPv4 form, got %s", p)
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%s has address bits beyond its length; write %s", p, p.Masked())
	}
	return p, nil
}
