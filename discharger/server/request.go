package server

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/wire"
)

const (
	maxQuery = 32 << 10 // request line and headers
	maxBody  = 32 << 10
	maxBatch = 512 << 10 // of revocations, or of epochs
)

// requestError is an invalid request. Its text is for the client.
type requestError string

func (e requestError) Error() string { return string(e) }

// badParam returns the error of an invalid parameter. It does not contain the value.
func badParam(name, problem string) error {
	return requestError(fmt.Sprintf("parameter %s %s", name, problem))
}

// params are the parameters of a bakery request: Go's client sends them in the
// query, Python's and JavaScript's in a form body. A duplicate parameter is an error;
// unknown ones are ignored. [http.Request.ParseForm] would allocate maps.
type params struct {
	values [len(paramNames)]string
	given  [len(paramNames)]uint8 // how often; 2 is more than once
	err    error
}

var paramNames = [...]string{
	wire.ParamID, wire.ParamID64, wire.ParamCaveat64, wire.ParamToken, wire.ParamToken64, wire.ParamTokenKind,
	wire.ParamRequestID, wire.ParamScope, wire.ParamSession, wire.ParamClientIP, wire.ParamUserAgent,
}

func readParams(r *http.Request, body []byte) *params {
	p := new(params)
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		p.err = badParam("body", "must not be compressed")
		return p
	}
	form, err := isForm(r)
	if err == nil && form {
		err = p.parse(string(body))
	}
	if err := errors.Join(err, p.parse(r.URL.RawQuery)); err != nil {
		p.err = badParam("list", "is not well-formed")
	}
	return p
}

// isForm reports whether a request has a form body.
func isForm(r *http.Request) (bool, error) {
	t := r.Header.Get("Content-Type")
	if t == "" || t == wire.ContentTypeForm {
		return t != "", nil
	}
	t, _, err := mime.ParseMediaType(t)
	return t == wire.ContentTypeForm, err
}

// parse parses parameters in the encoding of queries and forms.
func (p *params) parse(query string) error {
	for query != "" {
		var pair string
		if pair, query, _ = strings.Cut(query, "&"); strings.Contains(pair, ";") {
			return errors.New("a semicolon between parameters")
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return err
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return err
		}
		if i := slices.Index(paramNames[:], name); i >= 0 {
			p.values[i] = value
			p.given[i] = min(p.given[i]+1, 2)
		}
	}
	return nil
}

// text returns a parameter; empty if there is none.
func (p *params) text(name string) string {
	i := slices.Index(paramNames[:], name)
	if p.err == nil && p.given[i] > 1 {
		p.err = badParam(name, "is given more than once")
	}
	if p.err != nil {
		return ""
	}
	return p.values[i]
}

// has reports whether there is a parameter, which may be empty.
func (p *params) has(name string) bool { return p.given[slices.Index(paramNames[:], name)] > 0 }

// base64 returns a parameter's bytes; nil if there is none.
func (p *params) base64(name string) []byte {
	s := p.text(name)
	if s == "" {
		return nil
	}
	b, err := wire.DecodeBase64(s)
	if err != nil && p.err == nil {
		p.err = badParam(name, "is not base64")
	}
	return b
}

// bytes returns the value of a pair of parameters: base64 before text, as in the bakery.
func (p *params) bytes(text, encoded string) []byte {
	t, b := p.text(text), p.base64(encoded)
	if b != nil || t == "" {
		return b
	}
	return []byte(t)
}

// token returns the refresh token, which is base64 in both of its parameters.
func (p *params) token() []byte {
	b := p.base64(wire.ParamToken64)
	if t := p.base64(wire.ParamToken); b == nil {
		b = t
	}
	kind := p.text(wire.ParamTokenKind)
	switch {
	case p.err != nil:
	case b != nil && kind != wire.TokenKindRefresh:
		p.err = badParam(wire.ParamTokenKind, "must be "+wire.TokenKindRefresh+" if there is a token")
	case b == nil && kind != "":
		p.err = badParam(wire.ParamToken64, "is missing, but there is a token-kind")
	}
	return b
}

// request decodes the parameters common to discharge and logout.
func (s *Server) request(c echo.Context) (*discharger.Request, *params, error) {
	v := visitOf(c)
	if v.keyErr != nil {
		return nil, nil, v.keyErr
	}
	p := readParams(c.Request(), v.body)
	req := &discharger.Request{
		CaveatID:     p.bytes(wire.ParamID, wire.ParamID64),
		Caveat:       p.base64(wire.ParamCaveat64),
		RefreshToken: p.token(),
		RequestID:    p.text(wire.ParamRequestID),
		Client:       c.Request().UserAgent(),
		Homeserver:   v.homeserver,
		Addr:         v.addr,
	}
	if len(req.RequestID) > wire.MaxRequestID {
		p.err = badParam(wire.ParamRequestID, fmt.Sprintf("is longer than %d bytes", wire.MaxRequestID))
	}
	if p.err == nil && len(req.CaveatID) == 0 {
		p.err = badParam(wire.ParamID, "is missing")
	}
	if v.homeserver != "" {
		v.client = p.forClient(req)
	}
	return req, p, p.err
}

// forClient parses the client's address and name from a homeserver, which the core uses
// for that homeserver's own sessions only. It returns the address; invalid if absent.
func (p *params) forClient(req *discharger.Request) (named netip.Addr) {
	c := session.Party{Addr: req.Addr, Client: req.Client}
	if ip := p.text(wire.ParamClientIP); ip != "" {
		a, err := netip.ParseAddr(ip)
		if err != nil && p.err == nil {
			p.err = badParam(wire.ParamClientIP, "is not an IP address")
		}
		c.Addr, named = a, a
	}
	if p.has(wire.ParamUserAgent) {
		c.Client = p.text(wire.ParamUserAgent)
	}
	req.OnBehalfOf = &c
	return named
}

// apiKeys maps the SHA-256 of API keys to their homeservers.
type apiKeys map[[sha256.Size]byte]string

func newAPIKeys(byHomeserver map[string][][sha256.Size]byte) (apiKeys, error) {
	keys := make(apiKeys)
	for name, sums := range byHomeserver {
		for _, sum := range sums {
			if other, dup := keys[sum]; dup && other != name {
				names := []string{name, other}
				slices.Sort(names)
				return nil, fmt.Errorf("homeservers %q and %q have the same API key", names[0], names[1])
			}
			keys[sum] = name
		}
	}
	return keys, nil
}

var errUnauthorized = errors.New("the API key is not known")

// errUnknownAPIKey is for a key that [isMadeKey]: another process may have read its
// registration already.
var errUnknownAPIKey = fmt.Errorf("%w: %w: API key is not registered", discharger.ErrUnavailable, discharger.ErrUnknownKey)

// authenticate returns the homeserver of the request's API key; empty if the request has
// none.
func (k apiKeys) authenticate(h http.Header) (string, error) {
	values := h[wire.HeaderAuthorization]
	if len(values) == 0 {
		return "", nil
	}
	const prefix = len(wire.AuthorizationPrefix)
	if len(values) > 1 || len(values[0]) <= prefix || !strings.EqualFold(values[0][:prefix], wire.AuthorizationPrefix) {
		return "", errUnauthorized
	}
	key := values[0][prefix:]
	// The look-up is by digest, so that its time reveals nothing about a key.
	sum := sha256.Sum256([]byte(key))
	name, ok := k[sum]
	switch {
	case ok:
		return name, nil
	case isMadeKey(key):
		return "", errUnknownAPIKey
	}
	return "", errUnauthorized
}

// isMadeKey reports whether an API key has the form of those that are made by
// "discharger keys new": 32 bytes in base64url.
func isMadeKey(key string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(key)
	return err == nil && len(b) == 32 && !strings.ContainsAny(key, "\r\n")
}
