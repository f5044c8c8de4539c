package rawmacaroon

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Names of the first-party conditions that this project defines. A condition is a
// name, one space, and an argument.
const (
	CondTimeBefore = "time-before" // RFC 3339, UTC: holds before this time
	CondClientIP   = "client-ip"   // an address or a CIDR: holds for clients within
	CondDeclared   = "declared"    // "epoch" and a number: of a discharge in mode rotate
)

// declaredEpoch begins the argument of a declared condition.
const declaredEpoch = "epoch "

// CutCondition splits a condition at its first space. Without a space, the
// argument is empty.
func CutCondition(condition string) (name, arg string) {
	name, arg, _ = strings.Cut(condition, " ")
	return name, arg
}

// TimeBefore returns the condition that holds before t.
func TimeBefore(t time.Time) string {
	return CondTimeBefore + " " + t.UTC().Format(time.RFC3339Nano)
}

// ParseTimeBefore parses the argument of a time-before condition.
func ParseTimeBefore(arg string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, arg)
	if err != nil {
		return time.Time{}, errors.New("not a time in RFC 3339")
	}
	return t, nil
}

// Epoch returns the condition by which the discharger declares the epoch of a discharge.
func Epoch(n uint64) string {
	return CondDeclared + " " + declaredEpoch + strconv.FormatUint(n, 10)
}

// ParseEpoch parses the argument of a condition from [Epoch]; ok is false for any other.
func ParseEpoch(arg string) (n uint64, ok bool) {
	digits, ok := strings.CutPrefix(arg, declaredEpoch)
	if !ok || digits == "" || (digits[0] == '0' && len(digits) > 1) {
		return 0, false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return 0, false // ParseUint takes a plus sign
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil
}

// ClientIP returns the condition that holds for clients with an address in p. An
// IPv4 range that p spells as IPv6 is written as IPv4.
func ClientIP(p netip.Prefix) string {
	if q, ok := plainPrefix(p); ok {
		p = q
	}
	if p.IsSingleIP() {
		return CondClientIP + " " + p.Addr().String()
	}
	return CondClientIP + " " + p.Masked().String()
}

// ParseClientIP parses the argument of a client-ip condition: an address, IPv4
// or IPv6, without zone, or a CIDR. IPv4 addresses that are spelled as IPv6
// (::ffff:192.0.2.1) are converted to IPv4. The result is for [MatchClientIP].
func ParseClientIP(arg string) (netip.Prefix, error) {
	errAddress := errors.New("not an address or a CIDR")
	if strings.IndexByte(arg, '/') >= 0 {
		p, err := netip.ParsePrefix(arg)
		if err != nil {
			return netip.Prefix{}, errAddress
		}
		if p, ok := plainPrefix(p); ok {
			return p, nil
		}
		return netip.Prefix{}, errAddress
	}
	a, err := netip.ParseAddr(arg)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, errAddress
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// MatchClientIP reports whether a client's address is within a range from
// [ParseClientIP]. The zone of the address is ignored. The zero address, of an
// unknown client, is within no range.
func MatchClientIP(p netip.Prefix, client netip.Addr) bool {
	return p.Contains(client.Unmap().WithZone(""))
}

// plainPrefix converts a range of IPv4 addresses spelled as IPv6 into IPv4. ok is
// false for a range that contains other addresses too.
func plainPrefix(p netip.Prefix) (netip.Prefix, bool) {
	switch {
	case !p.IsValid():
		return netip.Prefix{}, false
	case !p.Addr().Is4In6():
		return p, true
	case p.Bits() < 96:
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96), true
}
