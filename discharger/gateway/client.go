package gateway

import (
	"net/http"
	"net/netip"
	"strings"
)

// headers that say where a request comes from. Homeservers believe them, so
// the gateway writes them anew: what a client sends is dropped, and what a
// trusted proxy says is reduced to the one address that can be relied on.
// Synapse takes the first of several, which could be anybody's.
const (
	headerFor    = "X-Forwarded-For"
	headerProto  = "X-Forwarded-Proto"
	headerHost   = "X-Forwarded-Host"
	headerRealIP = "X-Real-Ip"
)

// peer is the other end of the connection.
func peer(r *http.Request) netip.Addr {
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return a.Addr().Unmap().WithZone("")
	}
	a, err := netip.ParseAddr(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // a unix socket
	}
	return a.Unmap().WithZone("")
}

// clientAddress is where a request comes from: the peer, or behind trusted
// proxies the last address in X-Forwarded-For that is not one of them. The
// second result tells whether the peer is trusted.
func (g *Gateway) clientAddress(r *http.Request) (netip.Addr, bool) {
	at := peer(r)
	if !g.trusts(at) {
		return at, false
	}
	values := r.Header[headerFor]
	for i := len(values) - 1; i >= 0; i-- {
		for rest := values[i]; rest != ""; {
			var last string
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, last = rest[:comma], rest[comma+1:]
			} else {
				rest, last = "", rest
			}
			a, err := netip.ParseAddr(strings.TrimSpace(last))
			if err != nil {
				return at, true // from here on nothing can be relied on
			}
			if at = a.Unmap().WithZone(""); !g.trusts(at) {
				return at, true
			}
		}
	}
	return at, true
}

func (g *Gateway) trusts(a netip.Addr) bool {
	for _, p := range g.cfg.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forwarded writes the headers of an outgoing request.
func forwarded(out, in *http.Request, client netip.Addr, trusted bool) {
	proto, host := "", ""
	if trusted {
		proto, host = in.Header.Get(headerProto), in.Header.Get(headerHost)
	}
	if proto != "https" && proto != "http" {
		proto = "http"
		if in.TLS != nil {
			proto = "https"
		}
	}
	if host == "" {
		host = in.Host
	}
	out.Header.Del(headerRealIP)
	if client.IsValid() {
		text := client.String()
		out.Header[headerFor] = []string{text}
		out.Header[headerRealIP] = []string{text}
	}
	out.Header[headerProto] = []string{proto}
	out.Header[headerHost] = []string{host}
}
