package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// ErrAddress is wrapped by the error of a call to an address outside the allowed networks.
var ErrAddress = errors.New("address is not allowed")

// newDialer returns a dialer that checks each address after the name was resolved and
// before it connects, so that a name cannot point into an internal network. public allows
// addresses of the public Internet beside the listed networks.
func newDialer(allow []netip.Prefix, public bool, timeout time.Duration) *net.Dialer {
	return &net.Dialer{
		Timeout: timeout,
		ControlContext: func(_ context.Context, network, address string, _ syscall.RawConn) error {
			if network != "tcp4" && network != "tcp6" {
				return fmt.Errorf("network %s: %w", network, ErrAddress)
			}
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("address %q: %w", address, ErrAddress)
			}
			if !dialable(ap.Addr(), allow, public) {
				return fmt.Errorf("%s: %w", ap.Addr(), ErrAddress)
			}
			return nil
		},
		FallbackDelay: 50 * time.Millisecond,
	}
}

// dialable reports whether connections to an address are allowed.
func dialable(a netip.Addr, allow []netip.Prefix, public bool) bool {
	a = a.Unmap().WithZone("")
	contains := func(p netip.Prefix) bool { return p.Contains(a) }
	return slices.ContainsFunc(allow, contains) ||
		public && a.IsGlobalUnicast() && !a.IsPrivate() && !slices.ContainsFunc(specialNetworks(), contains)
}

// specialNetworks returns global unicast networks that are not public: special-purpose
// ranges of the IANA registries, IPv6 networks that embed an IPv4 address,
// and the metadata addresses of clouds.
func specialNetworks() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),        // this network
		netip.MustParsePrefix("100.64.0.0/10"),    // carrier NAT, and a cloud's metadata
		netip.MustParsePrefix("127.0.0.0/8"),      // loopback
		netip.MustParsePrefix("168.63.129.16/32"), // a cloud's host agent
		netip.MustParsePrefix("169.254.0.0/16"),   // link-local, and most clouds' metadata
		netip.MustParsePrefix("192.0.0.0/24"),     // protocol assignments
		netip.MustParsePrefix("192.0.2.0/24"),     // documentation
		netip.MustParsePrefix("192.88.99.0/24"),   // 6to4 relays
		netip.MustParsePrefix("198.18.0.0/15"),    // benchmarks
		netip.MustParsePrefix("198.51.100.0/24"),  // documentation
		netip.MustParsePrefix("203.0.113.0/24"),   // documentation
		netip.MustParsePrefix("240.0.0.0/4"),      // reserved, and broadcast
		netip.MustParsePrefix("::/96"),            // unspecified, loopback, IPv4-compatible
		netip.MustParsePrefix("64:ff9b::/96"),     // NAT64
		netip.MustParsePrefix("64:ff9b:1::/48"),   // NAT64, local
		netip.MustParsePrefix("100::/64"),         // discard
		netip.MustParsePrefix("2001::/23"),        // protocol assignments, Teredo
		netip.MustParsePrefix("2001:db8::/32"),    // documentation
		netip.MustParsePrefix("2002::/16"),        // 6to4
		netip.MustParsePrefix("3fff::/20"),        // documentation
		netip.MustParsePrefix("5f00::/16"),        // segment routing
		netip.MustParsePrefix("fec0::/10"),        // site-local
	}
}
