package gateway

import (
	"cmp"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"

	"github.com/discharger/discharger/discharger/clientaddr"
)

// headers that say where a request comes from. Homeservers believe them, so
// the gateway writes them anew: what a client sends is dropped, and what a
// trusted proxy says is reduced to the one address that can be relied on.
// Synapse takes the first of several, which could be anybody's.
const (
	headerFor    = clientaddr.Header
	headerProto  = "X-Forwarded-Proto"
	headerHost   = "X-Forwarded-Host"
	headerRealIP = "X-Real-Ip"
)

// peer returns the address of the other end of the connection; invalid on a
// Unix socket.
func peer(r *http.Request) netip.Addr { return clientaddr.Peer(r) }

// clientAddress returns where a request comes from, through trusted proxies. The
// second result reports whether the peer is one of them.
func (g *Gateway) clientAddress(r *http.Request) (netip.Addr, bool) {
	o := clientaddr.Of(r, g.live().TrustedProxies)
	if o.Malformed != "" {
		g.metrics.malformedFor.Inc()
		g.forWarned.Do(func() {
			g.cfg.Log.LogAttrs(r.Context(), slog.LevelWarn, "X-Forwarded-For not understood, clients have the proxy's address",
				slog.String("element", o.Malformed), slog.String("proxy", o.Addr.String()))
		})
	}
	return o.Addr, o.Trusted
}

// forwarded writes the headers of an outgoing request. The scheme is that by which
// clients reach the gateway, if it is configured.
func forwarded(out, in *http.Request, client netip.Addr, trusted bool, scheme string) {
	proto, host := scheme, ""
	if trusted {
		proto, host = cmp.Or(proto, in.Header.Get(headerProto)), in.Header.Get(headerHost)
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
	if client.IsValid() {
		text := client.String()
		out.Header[headerFor] = []string{text}
		out.Header[headerRealIP] = []string{text}
	}
	out.Header[headerProto] = []string{proto}
	out.Header[headerHost] = []string{host}
}

// trusts reports whether an address is that of a trusted proxy.
func (g *Gateway) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(g.live().TrustedProxies, func(p netip.Prefix) bool { return p.Contains(a) })
}
