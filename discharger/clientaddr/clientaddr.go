// Package clientaddr finds the address of the client that sent an HTTP request,
// through any number of trusted proxies.
//
// The address is the peer's, or behind a trusted peer the last one in
// X-Forwarded-For that is not a trusted proxy's. Elements before that one are the
// client's own and never read, and so are the headers Forwarded (RFC 7239) and
// X-Real-Ip, which many proxies pass on unchanged.
//
// An element of X-Forwarded-For has one of these forms, with optional white
// space around it:
//
//	192.0.2.7   192.0.2.7:50111   2001:db8::7   [2001:db8::7]   [2001:db8::7]:443
//
// An IPv6 address may have a zone. The address is returned without port and zone,
// and an IPv4 address mapped to IPv6 as IPv4. Empty elements are skipped (RFC 9110,
// section 5.6.1.2). Any other element ends the search: nothing before it can be
// relied on, and the address is that of the proxy that added it.
package clientaddr

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Header is the header that is read.
const Header = "X-Forwarded-For"

// Origin is where a request comes from.
type Origin struct {
	Addr      netip.Addr // of the client; invalid if the peer has none, as that of a Unix socket
	Trusted   bool       // the peer is a trusted proxy
	Malformed string     // element of X-Forwarded-For at which the search ended; empty: all were addresses
}

// Of returns where a request comes from.
func Of(r *http.Request, trusted []netip.Prefix) Origin {
	o := Origin{Addr: Peer(r)}
	if o.Trusted = contains(trusted, o.Addr); !o.Trusted {
		return o
	}
	values := r.Header[Header]
	for i := len(values) - 1; i >= 0; i-- {
		for rest := values[i]; rest != ""; {
			var last string
			rest, last = cutLast(rest)
			if last == "" {
				continue
			}
			a, ok := parse(last)
			if !ok {
				o.Malformed = last
				return o
			}
			if o.Addr = a; !contains(trusted, a) {
				return o
			}
		}
	}
	return o
}

// Peer returns the address of the other end of the connection; invalid if it has none.
func Peer(r *http.Request) netip.Addr {
	a, _ := parse(r.RemoteAddr)
	return a
}

// Network returns the network for which a client counts: an IPv4 address by itself, an
// IPv6 address by its /64, in which hosts choose their addresses. That of an invalid
// address is invalid.
func Network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits)
	return p
}

// Site returns the /48 of an IPv6 network. One subscriber often has many networks of
// it, and limits per network would multiply. The site of an IPv4 address, and of an
// invalid network, is invalid.
func Site(network netip.Prefix) netip.Prefix {
	if !network.Addr().Is6() {
		return netip.Prefix{}
	}
	p, _ := network.Addr().Prefix(48)
	return p
}

// Tally counts requests by network and by [Site]. Networks that are invalid are not
// counted.
type Tally map[netip.Prefix]int

// Add adds n requests of a network.
func (t Tally) Add(network netip.Prefix, n int) {
	for _, counted := range [...]netip.Prefix{network, Site(network)} {
		if !counted.IsValid() {
			continue
		}
		if t[counted] += n; t[counted] == 0 {
			delete(t, counted)
		}
	}
}

// Full reports whether a network or its site has as many requests as it may have.
func (t Tally) Full(network netip.Prefix, perNetwork, perSite int) bool {
	site := Site(network)
	return network.IsValid() && t[network] >= perNetwork || site.IsValid() && t[site] >= perSite
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// cutLast cuts off the last element of a list, without white space.
func cutLast(list string) (rest, last string) {
	last = list
	if comma := strings.LastIndexByte(list, ','); comma >= 0 {
		rest, last = list[:comma], list[comma+1:]
	}
	return rest, strings.Trim(last, " \t")
}

// parse reads an address, with or without a port.
func parse(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		if inside, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(s, "]") {
			a, err = netip.ParseAddr(inside[:len(inside)-1])
			if err != nil || a.Is4() {
				return netip.Addr{}, false
			}
		} else if p, err := netip.ParseAddrPort(s); err == nil {
			a = p.Addr()
		} else {
			return netip.Addr{}, false
		}
	}
	return a.Unmap().WithZone(""), true
}
