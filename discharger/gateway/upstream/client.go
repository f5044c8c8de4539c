package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
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
	transport swapped
	loop      string // name of this process in CDN-Loop
}

// New returns a client. It makes no connection.
func New(cfg Config) (*Client, error) {
	c := &Client{cfg: cfg, loop: newLoopName()}
	var err error
	if c.base, c.socket, err = parseAddress(cfg.Address); err != nil {
		return nil, err
	}
	if err := c.CheckTLS(cfg.TLS); err != nil {
		return nil, err
	}
	c.tls = cfg.TLS
	c.transport.replace(c.newTransport(cfg.TLS))
	return c, nil
}

// URL returns scheme and host of the homeserver.
func (c *Client) URL() *url.URL { return c.base }

// Transport returns the transport to the homeserver.
func (c *Client) Transport() http.RoundTripper { return &c.transport }

// Close closes idle connections.
func (c *Client) Close() { c.transport.current.Load().CloseIdleConnections() }

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
		c.transport.replace(c.newTransport(cfg))
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
		h[headerFor] = []string{o.Addr.String()}
		h[headerRealIP] = []string{o.Addr.String()}
	}
	if o.UserAgent != "" {
		h.Set("User-Agent", o.UserAgent)
	}
}

// Get requests a path with the homeserver's token; "": without one. The object is nil
// if the answer is not a JSON object. The error of a loop is [ErrLoop].
func (c *Client) Get(ctx context.Context, path, token string, o Origin) (status int, answer jsonbody.Object, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := c.newRequest(ctx, http.MethodGet, path, token, o)
	if err != nil {
		return 0, nil, err
	}
	c.Mark(req.Header)
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if c.cameBack(resp) {
		return 0, nil, ErrLoop
	}
	data, err := jsonbody.ReadResponse(resp)
	if err != nil {
		return 0, nil, err
	}
	if answer, err = jsonbody.Parse(data); err != nil {
		return resp.StatusCode, nil, nil
	}
	return resp.StatusCode, answer, nil
}

// newRequest returns a request of the gateway's own. Without a client, X-Forwarded-For
// is empty, and Synapse records neither address nor time of the device.
func (c *Client) newRequest(ctx context.Context, method, path, token string, o Origin) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+path, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set(headerAuthorization, "Bearer "+token)
	}
	req.Header[headerFor] = []string{""}
	req.Header[headerProto] = []string{cmp.Or(c.cfg.Scheme(), "https")}
	req.Header.Set("User-Agent", UserAgent)
	o.set(req.Header)
	return req, nil
}

// Logout ends a token and its device at the homeserver. It succeeds for a token that is
// unknown there.
func (c *Client) Logout(ctx context.Context, token string, o Origin) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := c.newRequest(ctx, http.MethodPost, PathLogout, token, o)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	jsonbody.SetRequest(req, jsonbody.Object{}.Encode())
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, jsonbody.MaxSize))
		return nil
	}
	answer, err := jsonbody.ReadLenient(resp)
	if code, _ := answer.Text("errcode"); err == nil && LogoutDone(resp.StatusCode, code) {
		return nil
	}
	return &StatusError{resp.StatusCode}
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
