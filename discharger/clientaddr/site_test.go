package clientaddr_test

import (
	"net/netip"
	"testing"

	"github.com/discharger/discharger/discharger/clientaddr"
)

func TestSite(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"2001:db8:1:2::3":      "2001:db8:1::/48",
		"2001:db8:1:ffff::3%x": "2001:db8:1::/48",
		"192.0.2.1":            "invalid Prefix",
		"::ffff:192.0.2.1":     "invalid Prefix",
	} {
		if got := clientaddr.Site(clientaddr.Network(netip.MustParseAddr(addr))).String(); got != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
	if clientaddr.Site(netip.Prefix{}).IsValid() {
		t.Error("no network has a site")
	}
}
