package config

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// isScalar tells the types that are written as one value.
func isScalar(v reflect.Value) bool {
	switch v.Addr().Interface().(type) {
	case *time.Duration, *netip.Prefix, encoding.TextUnmarshaler:
		return true
	}
	return v.Kind() == reflect.String || v.Kind() == reflect.Bool || v.Kind() == reflect.Int
}

// setScalar decodes one value.
func setScalar(v reflect.Value, n *yaml.Node) error {
	text := n.Value
	switch p := v.Addr().Interface().(type) {
	case *time.Duration:
		parsed, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("want a duration such as 90s, 5m or 720h, got %s", kindOf(n))
		}
		*p = parsed
		return nil
	case *netip.Prefix:
		parsed, err := parsePrefix(text)
		if err != nil {
			return err
		}
		*p = parsed
		return nil
	case *slog.Level:
		return setLevel(p, n)
	case encoding.TextUnmarshaler:
		return p.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		if n.ShortTag() != "!!str" {
			return fmt.Errorf("want a text, got %s; quote it if it is one", kindOf(n))
		}
		v.SetString(text)
	case reflect.Bool:
		if n.ShortTag() != "!!bool" {
			return fmt.Errorf("want true or false, got %s", kindOf(n))
		}
		v.SetBool(strings.EqualFold(text, "true"))
	default:
		number, err := strconv.Atoi(text)
		if err != nil || n.ShortTag() != "!!int" {
			return fmt.Errorf("want a whole number, got %s", kindOf(n))
		}
		v.SetInt(int64(number))
	}
	return nil
}

func setLevel(level *slog.Level, n *yaml.Node) error {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if strings.EqualFold(l.String(), n.Value) {
			*level = l
			return nil
		}
	}
	return fmt.Errorf("want debug, info, warn or error, got %s", kindOf(n))
}

// parsePrefix reads a CIDR, or an address, which stands for itself. An IPv4
// range spelled as IPv6 becomes plain IPv4, as clients' addresses do.
func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("want an address or a CIDR such as 10.0.0.0/8, got %q", cut(text))
	case p.Addr().Is4In6():
		return netip.Prefix{}, errors.New("want IPv4 ranges in their own spelling")
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%s has address bits beyond its length, did you mean %s?", p, p.Masked())
	}
	return p, nil
}

// wanted names the type of a scalar.
func wanted(v reflect.Value) string {
	switch v.Addr().Interface().(type) {
	case *time.Duration:
		return "a duration"
	case *netip.Prefix:
		return "an address or a CIDR"
	}
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	}
	return "a text"
}
