// Package client is the Go client of the discharger, for clients and for
// homeservers. Package wire is the contract that it keeps.
//
// # For clients
//
// [Client.Discharge] fetches one discharge. [Client.NewSession] returns a [Session],
// which keeps an access macaroon discharged. Programs built on the Go macaroon bakery
// use package bakery.
//
// # For homeservers
//
// With the API key of a homeserver, [Client.Sessions], [Client.RevokeSession],
// [Client.RevokeDevice], [Client.RevokeUser] and [Client.RevokeHomeserver] list
// and revoke the sessions that the homeserver minted, and
// [Client.FollowRevocations] reads the feed of revocations on one connection.
// Package homeserver reconnects and remembers the revocations.
//
// # Errors
//
// A [RefusedError] is a decision of the discharger; only one with Ended ends a
// session. An [UnavailableError] and a [BadRequestError] decide nothing. Since clients
// delete encryption keys after a hard end, an answer counts as a decision only if it
// has status 401 and a JSON body with the code "permission denied": the error page of
// a proxy and an unknown status are an UnavailableError.
//
// # Secrets
//
// The client sends secrets to the configured URL only, never to the location in a
// macaroon, which is not signed. It follows no redirect, puts no secret into a
// URL and logs nothing. Its types print without their secrets.
package client

import (
	"cmp"
	"context"
	"crypto/rand"
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
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/wire"
)

// Config configures a [Client]. Only URL is required.
type Config struct {
	// URL is the address of the service: http or https, a host, and optionally a
	// path. Secrets are sent there and nowhere else.
	URL string
	// Location is the location of caveats for the service. Empty: URL. A slash at
	// the end of either makes no difference.
	Location string
	// HTTPClient sends the requests, and follows no redirect. Nil: one on
	// http.DefaultTransport.
	HTTPClient *http.Client
	// APIKey is the API key of a homeserver, needed by the methods for homeservers,
	// in mode held, and for reporting a client's address. Empty: none.
	APIKey    secret.Bytes
	UserAgent string        // header of that name; empty: the one of net/http
	Timeout   time.Duration // of each attempt; 0: 10 seconds
	Patience  time.Duration // bounds the attempts of one call; 0: 30 seconds; below 0: one attempt
}

// Client sends requests to one service. It may be used concurrently and keeps no
// state between calls but the API key.
type Client struct {
	cfg  Config
	key  atomic.Pointer[secret.Bytes]
	http http.Client

	now    func() time.Time // tests replace it
	jitter func() float64   // likewise; from 0 to 1
}

// New returns a client. It does not connect.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, errors.New("new client: malformed URL")
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("new client: want a URL of scheme http or https with a host, without user, query and fragment")
	}
	cfg.Location = strings.TrimSuffix(cmp.Or(cfg.Location, cfg.URL), "/")
	cfg.URL = strings.TrimSuffix(cfg.URL, "/")
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	cfg.Patience = cmp.Or(cfg.Patience, 30*time.Second)
	c := &Client{cfg: cfg, now: time.Now, jitter: mathrand.Float64}
	c.SetAPIKey(cfg.APIKey)
	if cfg.HTTPClient != nil {
		c.http = *cfg.HTTPClient
	}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// SetAPIKey replaces the API key, for attempts and connections that begin later.
func (c *Client) SetAPIKey(key secret.Bytes) { c.key.Store(&key) }

// Request is the session of a request, and the proof that the sender holds it.
type Request struct {
	// Access is the access macaroon. Only its caveat for the service is sent.
	Access Access
	// Token is the current refresh token of the session, in mode rotate.
	Token RefreshToken
	// RequestID identifies a refresh in all its attempts. Empty: a random one for
	// the attempts of this call.
	RequestID string
	// ClientIP and UserAgent are the client's, in a request that its homeserver
	// sends. They are sent only with an API key.
	ClientIP  netip.Addr
	UserAgent string
}

// Discharge fetches a discharge. While the service is unavailable it repeats the
// attempt with growing pauses, none shorter than a Retry-After, until
// [Config.Patience] or ctx ends. It does not repeat an attempt that was answered.
//
// The error is a *RefusedError, *UnavailableError or *BadRequestError, or it
// concerns the arguments.
func (c *Client) Discharge(ctx context.Context, r Request) (Grant, error) {
	var grant Grant
	err := c.present(ctx, "discharge", r, func(ctx context.Context, form url.Values) error {
		started := c.now()
		var body wire.DischargeResponse
		err := c.post(ctx, wire.PathDischarge, form, &body)
		if err != nil {
			return err
		}
		if grant, err = newGrant(r.Access, c.cfg.Location, body, started); err != nil {
			return &UnavailableError{Err: fmt.Errorf("unusable answer: %w", err)}
		}
		return nil
	})
	return grant, err
}

// Logout ends the session, or with [wire.ScopeUser] all sessions of its user. It
// succeeds for a session that has ended by logout. Attempts and errors are as for
// [Client.Discharge].
func (c *Client) Logout(ctx context.Context, r Request, scope wire.Scope) error {
	return c.present(ctx, "log out", r, func(ctx context.Context, form url.Values) error {
		form.Set(wire.ParamScope, string(scope))
		return c.post(ctx, wire.PathLogout, form, &struct{}{})
	})
}

// Info fetches the public key of the service, to which homeservers seal caveats.
// A key from an http URL or an untrusted service proves nothing.
func (c *Client) Info(ctx context.Context) (caveat.PublicKey, error) {
	const doing = "get public key"
	body, err := call[wire.InfoResponse](ctx, c, doing, http.MethodGet, wire.PathInfo)
	if err != nil {
		return caveat.PublicKey{}, err
	}
	key, err := caveat.ParsePublicKey(body.PublicKey)
	if err != nil {
		return caveat.PublicKey{}, fmt.Errorf("%s: %w", doing, err)
	}
	return key, nil
}

// present calls send with the parameters of r, the same in every attempt, until it
// is answered. doing begins its error.
func (c *Client) present(ctx context.Context, doing string, r Request, send func(context.Context, url.Values) error) error {
	form, err := c.params(r)
	if err == nil {
		err = c.retry(ctx, func(ctx context.Context) error { return send(ctx, form) })
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

func (c *Client) params(r Request) (url.Values, error) {
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
		r.RequestID = newRequestID()
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

func newRequestID() string {
	var id [16]byte
	rand.Read(id[:]) // does not fail
	return wire.EncodeBase64(id[:])
}

// call sends a request without a body until it is answered. doing begins its error.
func call[T any](ctx context.Context, c *Client, doing, method, path string) (T, error) {
	var answer, none T
	err := c.retry(ctx, func(ctx context.Context) error { return c.send(ctx, method, path, "", "", &answer) })
	if err != nil {
		return none, fmt.Errorf("%s: %w", doing, err)
	}
	return answer, nil
}

// callJSON sends a JSON body until it is answered.
func (c *Client) callJSON(ctx context.Context, path string, body []byte, out any) error {
	return c.retry(ctx, func(ctx context.Context) error {
		return c.send(ctx, http.MethodPost, path, wire.ContentType, string(body), out)
	})
}

// post makes one attempt with a form.
func (c *Client) post(ctx context.Context, path string, form url.Values, out any) error {
	return c.send(ctx, http.MethodPost, path, wire.ContentTypeForm, form.Encode(), out)
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
	return decodeAnswer(resp, out)
}

func (c *Client) setHeaders(req *http.Request) {
	req.Header.Set(wire.HeaderProtocol, wire.ProtocolVersion)
	if key := *c.key.Load(); len(key) > 0 {
		req.Header.Set(wire.HeaderAuthorization, wire.AuthorizationPrefix+string(key))
	}
	if c.cfg.UserAgent != "" {
		req.Header.Set("User-Agent", c.cfg.UserAgent)
	}
}

// Format writes the URL of the service and no secret, for every verb.
func (c *Client) Format(s fmt.State, _ rune) { io.WriteString(s, "client of "+c.cfg.URL) }
