// Package upstream connects the gateway to the homeserver: it holds the address, the
// connections, the headers of requests that are passed on, and the requests that the
// gateway makes itself.
//
// Requests of the gateway's own carry the address and the name of the client on whose
// behalf they are made, since the homeserver shows users where and when their devices
// were last seen. They carry the homeserver's own token of a session and never one of
// the gateway's.
//
// An upstream can lead back to the gateway: by its own address, by a forwarded port,
// or through another proxy. Every request to the homeserver carries CDN-Loop (RFC
// 8586) with a random name of this process, and a request that arrives with the name
// is a loop.
package upstream

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/token"
)

// Paths of the client-server API at which the gateway makes requests itself.
const (
	PathLoginFlows = "/_matrix/client/v3/login"
	PathLogout     = "/_matrix/client/v3/logout"
	PathVersions   = "/_matrix/client/versions"
	PathWhoami     = "/_matrix/client/v3/account/whoami"
	PathDevices    = "/_matrix/client/v3/devices"
)

// UserAgent is the gateway's name in requests without a client.
const UserAgent = "discharger-gateway"

// ErrTLSWithoutHTTPS is returned for a TLS configuration with another scheme.
var ErrTLSWithoutHTTPS = errors.New("upstream: TLS without https")

// Config configures a [Client]. Address is required.
type Config struct {
	Address string        // http or https and a host, or unix: and the path of a socket
	TLS     *tls.Config   // nil: the system's authorities, and no client certificate
	Dial    Dialer        // nil: over the network
	Timeout time.Duration // of a request of the gateway's own
	Scheme  func() string // of the clients' connections to the gateway; "": unknown
}

// Client makes requests to one homeserver. It may be used concurrently.
type Client struct {
	cfg       Config
	base      *url.URL
	socket    string // empty: base is the address
	tls       *tls.Config
	transport atomic.Pointer[http.Transport]
	loop      string // name of this process in CDN-Loop
}

// New returns a client. It makes no connection.
func New(cfg Config) (*Client, error) {
	c := &Client{cfg: cfg, loop: "discharger-" + rand.Text()}
	var err error
	if c.base, c.socket, err = parseAddress(cfg.Address); err != nil {
		return nil, err
	}
	if err := c.CheckTLS(cfg.TLS); err != nil {
		return nil, err
	}
	c.tls = cfg.TLS
	c.transport.Store(c.newTransport(cfg.TLS))
	return c, nil
}

// URL returns scheme and host of the homeserver.
func (c *Client) URL() *url.URL { return c.base }

// RoundTrip implements [http.RoundTripper], for requests that are passed on.
func (c *Client) RoundTrip(r *http.Request) (*http.Response, error) {
	return c.transport.Load().RoundTrip(r)
}

// Close closes idle connections.
func (c *Client) Close() { c.transport.Load().CloseIdleConnections() }

// CheckTLS returns the error of a configuration for [Client.SetTLS].
func (c *Client) CheckTLS(cfg *tls.Config) error {
	if cfg != nil && c.base.Scheme != "https" {
		return ErrTLSWithoutHTTPS
	}
	return nil
}

// SetTLS replaces the TLS configuration. Requests in progress keep their connections.
// Calls must not be concurrent.
func (c *Client) SetTLS(cfg *tls.Config) {
	if !sameTLS(c.tls, cfg) {
		c.transport.Swap(c.newTransport(cfg)).CloseIdleConnections()
	}
	c.tls = cfg
}

func (c *Client) newTransport(secure *tls.Config) *http.Transport {
	t := NewTransport(c.cfg.Dial)
	t.TLSClientConfig = secure.Clone()
	if c.socket != "" {
		dialer := &net.Dialer{Timeout: dialTimeout}
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, schemeUnix, c.socket)
		}
	}
	return t
}

// Origin is the client on whose behalf a request is made. The zero value is none.
type Origin struct {
	Addr      netip.Addr
	UserAgent string
}

func (o Origin) set(h http.Header) {
	if o.Addr.IsValid() {
		text := o.Addr.String()
		h[headerFor], h[headerRealIP] = []string{text}, []string{text}
	}
	if o.UserAgent != "" {
		h.Set("User-Agent", o.UserAgent)
	}
}

// Get requests a path with the homeserver's token; "": without one. The object is nil
// if the answer is not a JSON object. The error of a loop is [ErrLoop].
func (c *Client) Get(ctx context.Context, path, token string, o Origin) (status int, answer jsonbody.Object, err error) {
	return c.do(ctx, http.MethodGet, path, token, o)
}

// Logout ends a token and its device at the homeserver. It succeeds for a token that is
// unknown there.
func (c *Client) Logout(ctx context.Context, token string, o Origin) error {
	status, answer, err := c.do(ctx, http.MethodPost, PathLogout, token, o)
	code, _ := answer.Text("errcode")
	switch {
	case status == 0:
		return err
	case status == http.StatusOK, LogoutDone(status, code):
		return nil
	}
	return &StatusError{status}
}

// do makes a request of the gateway's own; a POST has an empty object as body. Without a
// client, X-Forwarded-For is empty, and Synapse records neither address nor time of the
// device. The status is 0 if there is no answer.
func (c *Client) do(ctx context.Context, method, path, access string, o Origin) (status int, answer jsonbody.Object, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
		jsonbody.SetRequest(req, jsonbody.Object{}.Encode())
	}
	if access != "" {
		req.Header.Set(token.HeaderAuthorization, token.Bearer+access)
	}
	req.Header[headerFor] = []string{""}
	req.Header[headerProto] = []string{cmp.Or(c.cfg.Scheme(), "https")}
	req.Header.Set("User-Agent", UserAgent)
	o.set(req.Header)
	c.Mark(req.Header)
	resp, err := c.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusLoopDetected && c.Looped(resp.Header) {
		return 0, nil, ErrLoop
	}
	data, err := jsonbody.ReadResponse(resp)
	if err != nil {
		return resp.StatusCode, nil, err
	}
	answer, _ = jsonbody.Parse(data) // nil: not an object
	return resp.StatusCode, answer, nil
}

// LogoutDone reports whether the answer to a logout is final: the token is unknown, or
// a guest's, which cannot be ended.
func LogoutDone(status int, code string) bool {
	return status == http.StatusUnauthorized && (code == matrix.CodeUnknownToken || code == matrix.CodeMissingToken) ||
		(status == http.StatusUnauthorized || status == http.StatusForbidden) && code == matrix.CodeGuest
}

// Verdict is the homeserver's answer about a token of its own.
type Verdict struct {
	Known  bool
	Soft   bool // of an unknown one: soft_logout
	Silent bool // of an unknown one: soft_logout is missing
}

// ErrUndecided is returned for an answer that does not decide about a token.
var ErrUndecided = errors.New("the homeserver did not decide about a token")

// Known requests from the homeserver whether a token is known. A 401 to another request
// does not imply that it is unknown: the homeserver passes on answers of other servers,
// such as identity servers.
func (c *Client) Known(ctx context.Context, token string, o Origin) (Verdict, error) {
	status, answer, err := c.Get(ctx, PathWhoami, token, o)
	if err != nil {
		return Verdict{}, err
	}
	code, _ := answer.Text("errcode")
	switch {
	case status == http.StatusUnauthorized && code == matrix.CodeUnknownToken:
		softLogout := answer.Get("soft_logout")
		return Verdict{Soft: softLogout.Kind() == 't', Silent: softLogout == nil}, nil
	case status == http.StatusOK, status == http.StatusUnauthorized, status == http.StatusForbidden:
		return Verdict{Known: true}, nil
	}
	return Verdict{}, ErrUndecided
}

// StatusError is an unexpected status of the homeserver.
type StatusError struct{ Status int }

// Error implements error.
func (e *StatusError) Error() string {
	return "the homeserver answered with status " + strconv.Itoa(e.Status)
}

// Scheme of a homeserver that listens on a Unix socket, and the host of requests to
// it. A request that is passed on keeps the client's host.
const (
	schemeUnix = "unix"
	socketHost = "localhost"
)

// parseAddress parses the address of a homeserver: http or https and a host, or
// unix: and the absolute path of a socket.
func parseAddress(text string) (u *url.URL, socket string, err error) {
	if path, ok := strings.CutPrefix(text, schemeUnix+":"); ok {
		if !filepath.IsAbs(path) || strings.HasPrefix(path, "//") {
			return nil, "", errors.New("path of socket is invalid, want one such as unix:/run/matrix/synapse.sock")
		}
		return &url.URL{Scheme: "http", Host: socketHost}, path, nil
	}
	u, err = ParseBase(text)
	return u, "", err
}

// ParseBase parses a URL that consists of http or https and a host.
func ParseBase(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("url is invalid, want http or https and a host only")
	}
	return u, nil
}
