package clientaddr_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/clientaddr"
)

var trusted = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:ffff::/48")}

func request(peer string, values ...string) *http.Request {
	return &http.Request{RemoteAddr: peer, Header: http.Header{
		clientaddr.Header: values, "Forwarded": {"for=198.51.100.66"}, "X-Real-Ip": {"198.51.100.67"},
	}}
}

func TestOf(t *testing.T) {
	t.Parallel()
	const proxy = "10.0.0.1:4711"
	for _, c := range []struct {
		name, peer string
		values     []string
		want       string // "": none
		malformed  string
	}{
		{"not behind a proxy", "192.0.2.7:4711", nil, "192.0.2.7", ""},
		{"header of a client", "192.0.2.7:4711", []string{"203.0.113.1"}, "192.0.2.7", ""},
		{"malformed header of a client", "192.0.2.7:4711", []string{"x"}, "192.0.2.7", ""},
		{"peer on IPv6", "[2001:db8::7]:4711", nil, "2001:db8::7", ""},
		{"peer on a link", "[fe80::1%eth0]:4711", nil, "fe80::1", ""},
		{"peer mapped to IPv6", "[::ffff:192.0.2.7]:4711", nil, "192.0.2.7", ""},
		{"proxy mapped to IPv6", "[::ffff:10.0.0.1]:4711", []string{"203.0.113.1"}, "203.0.113.1", ""},
		{"peer on a Unix socket", "@", []string{"203.0.113.1"}, "", ""},
		{"peer on a named Unix socket", "/run/x.sock", nil, "", ""},
		{"peer without a name", "", []string{"203.0.113.1"}, "", ""},

		{"no header", proxy, nil, "10.0.0.1", ""},
		{"empty header", proxy, []string{""}, "10.0.0.1", ""},
		{"IPv4", proxy, []string{"203.0.113.7"}, "203.0.113.7", ""},
		{"IPv4 with a port", proxy, []string{"203.0.113.7:50111"}, "203.0.113.7", ""},
		{"IPv6", proxy, []string{"2001:db8:1::7"}, "2001:db8:1::7", ""},
		{"IPv6 in brackets", proxy, []string{"[2001:db8:1::7]"}, "2001:db8:1::7", ""},
		{"IPv6 with a port", proxy, []string{"[2001:db8:1::7]:443"}, "2001:db8:1::7", ""},
		{"IPv6 with a zone", proxy, []string{"fe80::7%eth0"}, "fe80::7", ""},
		{"IPv6 with a zone in brackets", proxy, []string{"[fe80::7%eth0]"}, "fe80::7", ""},
		{"IPv6 with a zone and a port", proxy, []string{"[fe80::7%eth0]:443"}, "fe80::7", ""},
		{"mapped to IPv6", proxy, []string{"::ffff:203.0.113.7"}, "203.0.113.7", ""},
		{"mapped to IPv6 with a port", proxy, []string{"[::ffff:203.0.113.7]:443"}, "203.0.113.7", ""},

		{"the client's own elements", proxy, []string{"198.51.100.1, 203.0.113.7:1"}, "203.0.113.7", ""},
		{"malformed elements of the client", proxy, []string{"<script>,203.0.113.7"}, "203.0.113.7", ""},
		{"two proxies", proxy, []string{"203.0.113.7:9, 10.9.9.9:8"}, "203.0.113.7", ""},
		{"proxies on both families", proxy, []string{"203.0.113.7,[2001:db8:ffff::1]:8"}, "203.0.113.7", ""},
		{"two headers", proxy, []string{"203.0.113.7", "10.9.9.9"}, "203.0.113.7", ""},
		{"proxies only", proxy, []string{"10.7.7.7, 10.9.9.9"}, "10.7.7.7", ""},
		{"white space and empty elements", proxy, []string{" ,\t203.0.113.7 , ,\t", ""}, "203.0.113.7", ""},

		{"a name", proxy, []string{"203.0.113.7, unknown"}, "10.0.0.1", "unknown"},
		{"a name before a proxy", proxy, []string{"203.0.113.7, unknown, 10.9.9.9"}, "10.9.9.9", "unknown"},
		{"a port that is none", proxy, []string{"203.0.113.7:99999"}, "10.0.0.1", "203.0.113.7:99999"},
		{"a port that is empty", proxy, []string{"203.0.113.7:"}, "10.0.0.1", "203.0.113.7:"},
		{"a port alone", proxy, []string{":443"}, "10.0.0.1", ":443"},
		{"IPv4 in brackets", proxy, []string{"[203.0.113.7]"}, "10.0.0.1", "[203.0.113.7]"},
		{"IPv4 with a zone", proxy, []string{"203.0.113.7%eth0"}, "10.0.0.1", "203.0.113.7%eth0"},
		{"half of a bracket", proxy, []string{"[2001:db8:1::7"}, "10.0.0.1", "[2001:db8:1::7"},
		{"quoted as in Forwarded", proxy, []string{`"[2001:db8:1::7]:443"`}, "10.0.0.1", `"[2001:db8:1::7]:443"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := clientaddr.Of(request(c.peer, c.values...), trusted)
			want := ""
			if got.Addr.IsValid() {
				want = got.Addr.String()
			}
			if want != c.want || got.Malformed != c.malformed {
				t.Errorf("%q: %+v, want %q and %q", c.values, got, c.want, c.malformed)
			}
		})
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"192.0.2.7":              "192.0.2.7/32",
		"::ffff:192.0.2.7":       "192.0.2.7/32",
		"2001:db8:1:2:3:4:5:6":   "2001:db8:1:2::/64",
		"fe80::1%eth0":           "fe80::/64",
		"2001:db8:1:2:ff::1%lan": "2001:db8:1:2::/64",
	} {
		if got := clientaddr.Network(netip.MustParseAddr(addr)); got.String() != want {
			t.Errorf("%s: %v, want %s", addr, got, want)
		}
	}
	if got := clientaddr.Network(netip.Addr{}); got.IsValid() {
		t.Errorf("no address: %v", got)
	}
}

// FuzzOf looks for an address that is not in the header, or one that the client
// chose: only the last element is the proxy's.
func FuzzOf(f *testing.F) {
	f.Add("203.0.113.7:1, 10.0.0.2")
	f.Add("[fe80::1%a,b]:1")
	f.Add("[::ffff:10.0.0.2]:1,x")
	f.Fuzz(func(t *testing.T, header string) {
		got := clientaddr.Of(request("10.0.0.1:1", header), trusted)
		if !got.Trusted || !got.Addr.IsValid() || got.Addr.Zone() != "" || got.Addr.Is4In6() {
			t.Fatalf("%q: %+v", header, got)
		}
		if !strings.Contains(header, got.Malformed) {
			t.Fatalf("%q: %q is not in it", header, got.Malformed)
		}
		if got := clientaddr.Of(request("10.0.0.1:1", header+",203.0.113.7:1"), trusted); got.Addr != netip.MustParseAddr("203.0.113.7") || got.Malformed != "" {
			t.Fatalf("%q: %+v", header, got)
		}
	})
}
