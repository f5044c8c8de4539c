package upstream

import (
	"cmp"
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/discharger/discharger/discharger/clientaddr"
	"github.com/discharger/discharger/discharger/gateway/token"
)

// CleanHeaders removes fields from a request that are for the gateway only, or that a
// homeserver, or a proxy before it, might interpret in another way than the gateway. It
// is called before the headers are read.
//
//   - Hop-by-hop fields, and those that Connection names, unless they are meant for the
//     homeserver: without them, the request would have another meaning there.
//   - Upgrade: the gateway would not see the data after it. Matrix does not use it.
//   - Expect: the server has answered it.
//   - Trailers, which some servers add to the headers.
//   - Names with an underscore, which some servers replace by a hyphen. Nginx drops
//     them too.
//   - A Referer with a token.
func CleanHeaders(r *http.Request) {
	h := r.Header
	for _, value := range h[headerConnection] {
		for name := range strings.SplitSeq(value, ",") {
			if name = http.CanonicalHeaderKey(strings.Trim(name, " \t")); name != "" && !endToEnd(name) {
				delete(h, name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
	r.Trailer = nil
	maps.DeleteFunc(h, func(name string, _ []string) bool { return strings.Contains(name, "_") })
	if values := h[headerReferer]; len(values) > 0 && slices.ContainsFunc(values, namesToken) {
		delete(h, headerReferer)
	}
}

// Headers that name the origin of a request. Homeservers trust them, so the gateway
// replaces them: values of clients are dropped, and those of a trusted proxy are
// reduced to one address. Synapse takes the first of several.
const (
	headerFor    = clientaddr.Header
	headerProto  = "X-Forwarded-Proto"
	headerHost   = "X-Forwarded-Host"
	headerRealIP = "X-Real-Ip"
)

const (
	headerConnection = "Connection"
	headerReferer    = "Referer"
	headerLoop       = "Cdn-Loop"
)

// hopByHop are the fields of one connection, without Transfer-Encoding, which the server
// has removed.
var hopByHop = [...]string{
	headerConnection, "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Upgrade", "Expect",
}

// endToEnd reports whether a field is meant for the homeserver, or names the origin of a
// request.
func endToEnd(name string) bool {
	for _, prefix := range [...]string{"X-Forwarded-", "Content-", "Accept", "Access-Control-", "If-", "Sec-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	switch name {
	case token.HeaderAuthorization, headerRealIP, "Forwarded", "Host", "User-Agent", "Cookie", "Origin", "Range", "Cache-Control", "Date", headerReferer, headerLoop:
		return true
	}
	return false
}

// namesToken reports whether a URL may contain a token, in up to three encodings.
func namesToken(text string) bool {
	for range 4 {
		marks := []string{token.ParamAccessToken, token.PrefixHeld, token.PrefixRotate, token.PrefixRefresh}
		if slices.ContainsFunc(marks, func(mark string) bool { return strings.Contains(text, mark) }) {
			return true
		}
		decoded, err := url.PathUnescape(text)
		switch {
		case err != nil:
			return true // undecided
		case decoded == text:
			return false
		}
		text = decoded
	}
	return true
}

// SetForwarded replaces the headers that name the origin of a request to be passed on.
// The scheme is that of the clients' connections, if it is configured.
// X-Forwarded-Proto and X-Forwarded-Host of a peer that is not trusted are ignored.
func SetForwarded(out, in *http.Request, client netip.Addr, trusted bool, scheme string) {
	maps.DeleteFunc(out.Header, func(name string, _ []string) bool { return strings.HasPrefix(name, "X-Forwarded-") })
	delete(out.Header, headerRealIP)
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
	Origin{Addr: client}.set(out.Header)
	out.Header[headerProto] = []string{proto}
	out.Header[headerHost] = []string{cmp.Or(host, in.Host)}
}

// ErrLoop is returned for an address of the homeserver that leads back to the gateway.
var ErrLoop = errors.New("upstream leads back to this gateway, set it to the address of the homeserver itself")

// Mark adds the name of this process to the headers of a request to the homeserver.
func (c *Client) Mark(h http.Header) { h[headerLoop] = append(h[headerLoop], c.loop) }

// Answer adds the name of this process to the headers of the answer to a loop.
func (c *Client) Answer(h http.Header) { h.Set(headerLoop, c.loop) }

// Looped reports whether the headers of a request name this process.
func (c *Client) Looped(h http.Header) bool {
	for _, v := range h[headerLoop] {
		for name := range strings.SplitSeq(v, ",") {
			name, _, _ = strings.Cut(name, ";")
			if strings.TrimSpace(name) == c.loop {
				return true
			}
		}
	}
	return false
}
