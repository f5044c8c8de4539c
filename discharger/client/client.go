package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

// Config is what a [Client] is made from. Only URL is required.
type Config struct {
	// URL is where the service is reached: http or https, a host, perhaps a
	// path. Secrets are sent there and nowhere else.
	URL string
	// Location is what caveats call the service. Empty: URL. A slash at the
	// end of either makes no difference.
	Location string
	// HTTPClient sends the requests. Nil: one on http.DefaultTransport. No
	// redirect is followed, whatever it says.
	HTTPClient *http.Client
	// APIKey is a homeserver's API key. It is needed in mode held and for
	// passing on a client's address; empty: none. [Client.SetAPIKey] replaces it.
	APIKey caveat.Secret
	// UserAgent goes into that header. Empty: Go's own.
	UserAgent string
	// Timeout bounds each attempt. 0: 10 seconds.
	Timeout time.Duration
	// Patience is for how long a call goes on trying while the service is
	// unavailable. 0: 30 seconds; below 0: only one attempt.
	Patience time.Duration
	// Clock tells the time. Nil: time.Now.
	Clock func() time.Time
	// Rand is where request-ids are drawn from. Nil: crypto/rand.
	Rand io.Reader
	// Jitter gives numbers from 0 up to 1 that spread clients over time. Nil:
	// math/rand/v2.
	Jitter func() float64
}

// Client speaks with one service. It may be used concurrently and keeps no
// state between calls.
type Client struct {
	cfg  Config
	key  atomic.Pointer[caveat.Secret] // the current API key
	http http.Client
}

// New checks a configuration and makes a client. It does not connect.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, errors.New("new client: URL cannot be parsed")
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("new client: URL has to be http or https with a host, without user, query and fragment")
	}
	if cfg.Location == "" {
		cfg.Location = cfg.URL
	}
	cfg.URL = strings.TrimSuffix(cfg.URL, "/")
	cfg.Location = strings.TrimSuffix(cfg.Location, "/")
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Patience == 0 {
		cfg.Patience = 30 * time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Jitter == nil {
		cfg.Jitter = mathrand.Float64
	}
	c := &Client{cfg: cfg}
	c.SetAPIKey(cfg.APIKey)
	if cfg.HTTPClient != nil {
		c.http = *cfg.HTTPClient
	}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// SetAPIKey replaces the API key. Attempts that begin later have the new one, and
// so has the next connection of [Client.FollowRevocations].
func (c *Client) SetAPIKey(key caveat.Secret) {
	c.key.Store(&key)
}

// Request is what a discharge or a logout is asked for with.
type Request struct {
	// Access is the access macaroon. Only its caveat for the service is sent.
	Access Access
	// Token is the session's current refresh token, in mode rotate.
	Token RefreshToken
	// RequestID names this one refresh; another attempt at the same has the
	// same. Empty: one is drawn, and used for all attempts of the call.
	RequestID string
	// ClientIP and UserAgent are those of the client that a homeserver asks
	// for. They count only with an API key.
	ClientIP  netip.Addr
	UserAgent string
}

// Discharge gets a discharge. While the service is unavailable it tries again,
// with growing pauses, no sooner than the service asks for, until
// [Config.Patience] or ctx ends. It does not try again after an answer.
//
// The error is a *RefusedError, an *UnavailableError, a *BadRequestError, or
// about the arguments.
func (c *Client) Discharge(ctx context.Context, r Request) (Grant, error) {
	id, _, err := r.Access.caveatFor(c.cfg.Location)
	if err != nil {
		return Grant{}, fmt.Errorf("discharge: %w", err)
	}
	form, err := c.form(r)
	if err != nil {
		return Grant{}, fmt.Errorf("discharge: %w", err)
	}
	var grant Grant
	err = c.patiently(ctx, func(ctx context.Context) error {
		started := c.cfg.Clock()
		var body wire.DischargeResponse
		if err := c.do(ctx, http.MethodPost, wire.PathDischarge, form, &body); err != nil {
			return err
		}
		g, err := newGrant(r.Access.Macaroon, id, body, started)
		if err != nil {
			return &UnavailableError{Err: fmt.Errorf("unusable answer: %w", err)}
		}
		grant = g
		return nil
	})
	if err != nil {
		return Grant{}, fmt.Errorf("discharge: %w", err)
	}
	return grant, nil
}

// Logout ends the session, or with [wire.ScopeUser] all sessions of its user. It
// succeeds for a session that is logged out already. Attempts and errors are as
// with [Client.Discharge].
func (c *Client) Logout(ctx context.Context, r Request, scope wire.Scope) error {
	form, err := c.form(r)
	if err != nil {
		return fmt.Errorf("log out: %w", err)
	}
	form.Set(wire.ParamScope, string(scope))
	err = c.patiently(ctx, func(ctx context.Context) error {
		return c.do(ctx, http.MethodPost, wire.PathLogout, form, &struct{}{})
	})
	if err != nil {
		return fmt.Errorf("log out: %w", err)
	}
	return nil
}

// Info asks for the service's public key, to which homeservers seal caveats.
// Over http, or from a service that is not trusted, the key proves nothing.
func (c *Client) Info(ctx context.Context) (caveat.PublicKey, error) {
	var body wire.InfoResponse
	err := c.patiently(ctx, func(ctx context.Context) error {
		return c.do(ctx, http.MethodGet, wire.PathInfo, nil, &body)
	})
	if err != nil {
		return caveat.PublicKey{}, fmt.Errorf("get public key: %w", err)
	}
	key, err := caveat.ParsePublicKey(body.PublicKey)
	if err != nil {
		return caveat.PublicKey{}, fmt.Errorf("get public key: %w", err)
	}
	return key, nil
}

// form writes a request's parameters.
func (c *Client) form(r Request) (url.Values, error) {
	id, external, err := r.Access.caveatFor(c.cfg.Location)
	if err != nil {
		return nil, err
	}
	form := url.Values{wire.ParamID64: {wire.EncodeBase64(id)}}
	if external != nil {
		form.Set(wire.ParamCaveat64, wire.EncodeBase64(external))
	}
	if r.Token != "" {
		form.Set(wire.ParamToken64, string(r.Token))
		form.Set(wire.ParamTokenKind, wire.TokenKindRefresh)
	}
	if r.RequestID == "" {
		if r.RequestID, err = c.newRequestID(); err != nil {
			return nil, err
		}
	}
	form.Set(wire.ParamRequestID, r.RequestID)
	if len(*c.key.Load()) > 0 {
		if r.ClientIP.IsValid() {
			form.Set(wire.ParamClientIP, r.ClientIP.Unmap().String())
		}
		if r.UserAgent != "" {
			form.Set(wire.ParamUserAgent, r.UserAgent)
		}
	}
	return form, nil
}

func (c *Client) newRequestID() (string, error) {
	var id [16]byte
	if _, err := io.ReadFull(c.cfg.Rand, id[:]); err != nil {
		return "", fmt.Errorf("draw request-id: %w", err)
	}
	return wire.EncodeBase64(id[:]), nil
}

// do makes one attempt with a form and decodes the answer into out.
func (c *Client) do(ctx context.Context, method, path string, form url.Values, out any) error {
	contentType := ""
	if method == http.MethodPost {
		contentType = wire.ContentTypeForm
	}
	return c.send(ctx, method, path, contentType, form.Encode(), out)
}

// send makes one attempt and decodes the answer into out.
func (c *Client) send(ctx context.Context, method, path, contentType, body string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.cfg.URL+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	c.setHeaders(req)
	resp, err := c.http.Do(req)
	if err != nil {
		return &UnavailableError{Err: err}
	}
	defer resp.Body.Close()
	return decodeAnswer(resp, c.cfg.Clock(), out)
}

// setHeaders sets what goes with every request.
func (c *Client) setHeaders(req *http.Request) {
	req.Header.Set(wire.HeaderProtocol, wire.ProtocolVersion)
	if key := *c.key.Load(); len(key) > 0 {
		req.Header.Set(wire.HeaderAuthorization, wire.AuthorizationPrefix+string(key))
	}
	if c.cfg.UserAgent != "" {
		req.Header.Set("User-Agent", c.cfg.UserAgent)
	}
}

// decodeBody reads a JSON body of an answer, which has the member if one is given.
func decodeBody(resp *http.Response, out any, member string) error {
	const limit = 4 << 20 // the sessions of one user may be many, with device names of 2 KiB
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return err
	}
	if len(data) > limit {
		return errors.New("answer is too large")
	}
	if err := json.Unmarshal(data, out); err != nil {
		return errNotAnswer
	}
	if member == "" {
		return nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return errNotAnswer
	}
	if v := members[member]; len(v) == 0 || v[0] == 'n' {
		return fmt.Errorf("answer is without %q", member)
	}
	return nil
}

var errNotAnswer = errors.New("answer is not the JSON it should be")

// Format writes the service's URL and no secret, whatever the verb.
func (c *Client) Format(s fmt.State, _ rune) { io.WriteString(s, "client of "+c.cfg.URL) }
