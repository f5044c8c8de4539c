// Package secevent sends revocations to other systems as standard security
// events: each revocation in a homeserver's feed becomes a signed security event
// token, which is pushed to the receiver of the homeserver.
//
// # What a receiver gets
//
// One POST (RFC 8935) for each event, of content type
// application/secevent+jwt. The token (RFC 8417) is signed with RS256, as the
// CAEP interoperability profile demands, and has these members:
//
//	header   typ: secevent+jwt   kid: which of the published keys
//	iss      the service's public URL
//	aud      the receiver's audience
//	iat      when it was signed
//	jti      names the event: the same whenever and by any process it is sent
//	sub_id   whose sessions, a complex subject (OpenID SSF 1.0, RFC 9493)
//	events   one, CAEP session-revoked: event_timestamp, initiating_entity and
//	         reason_admin
//
// There is no sub, which is for subjects without a format, and no exp, since an
// end is for ever. The members of the subject are
//
//	a session has ended       session; user and device, if they are known
//	all of a device's have    user, device
//	all of a user's have      user
//	all of a homeserver's     tenant: the homeserver's name
//
// A user is iss_sub, the form that the profile has receivers know: the issuer,
// and the homeserver's name of the user. The others are opaque. CAEP has no word
// for a part of a subject, nor for the kind of end: the event has members
// beside, [MemberExcept], [MemberDevices] and [MemberKind]. A receiver that does
// not know the first two ends those sessions too.
//
// # What it promises
//
// Delivery at least once, and in the order of the feed. An event is behind us
// once the receiver has answered 202 or 200. One that it refuses for what it is
// (400 and a body with err, RFC 8935, section 2.4) is logged, counted and passed
// over: the same token would be refused for ever. Three of the codes there are
// about who we are, and may be mended: authentication_failed, access_denied and
// invalid_key, which is also what a receiver says that has not seen a new key
// yet. After these, and whatever else comes, be it 401, 503, a redirect, silence
// or no connection at all, the same token is sent again after a pause that grows
// and is never quite the same. Redirects are not followed. How far it came is in
// a file, which is written after each event: what was sent before a crash may be
// sent once more, with the same jti.
//
// Receivers do not wait for each other, and no revocation waits for a receiver.
// If several processes send, receivers drop duplicates by jti.
//
// A feed keeps events for about as long as discharges may live, an hour by
// default. A receiver that was away for longer has missed some, which is logged and
// counted.
//
// # What it never does
//
// It logs no token, no header and no URL, and prints no key.
package secevent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
)

// Config is what a [Sender] needs. Feed, Issuer, Keys and Dir are required; the
// zero value of the rest is the documented default.
type Config struct {
	Feed      discharger.Feed
	Receivers []Receiver
	Issuer    string // "iss": the service's public URL
	Keys      *Keys
	Dir       string // where it is kept how far each receiver has come; it has to exist

	Timeout   time.Duration     // of one POST, answer included; 0: 10 s
	Transport http.RoundTripper // nil: one of its own, with TLS 1.2 or later
	Metrics   *Metrics          // nil: nothing is counted
	Log       *slog.Logger      // nil: nothing is logged
	Now       func() time.Time  // nil: time.Now

	// Wait returns nil after a while, or ctx's error when ctx ends first; nil:
	// with a timer.
	Wait func(ctx context.Context, d time.Duration) error
	// Jitter is from 0 to 1, and makes pauses differ; nil: at random.
	Jitter func() float64
}

// Receiver is where the revocations of one homeserver's sessions are sent.
type Receiver struct {
	Homeserver    string        // whose feed
	URL           string        // where tokens are sent to: https, or http to a loopback address
	Audience      string        // who they are for
	Authorization caveat.Secret // value of the header Authorization; empty: there is none
}

// Sender sends what is in feeds to receivers.
type Sender struct {
	couriers  []*courier
	transport http.RoundTripper
}

// New checks the configuration, and that what is kept of each receiver can be
// read. Nothing is sent before [Sender.Run].
func New(cfg Config) (*Sender, error) {
	if cfg.Feed == nil || cfg.Issuer == "" || cfg.Keys == nil || cfg.Dir == "" {
		return nil, errors.New("a sender of security events needs a feed, an issuer, keys and a directory")
	}
	if cfg.Timeout < 0 {
		return nil, errors.New("timeout is negative")
	}
	cfg.complete()
	s := &Sender{transport: cfg.Transport}
	client := &http.Client{
		Transport:     cfg.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	seen := make(map[string]bool)
	for _, r := range cfg.Receivers {
		err := r.check()
		if err == nil && seen[r.Homeserver] {
			err = errors.New("duplicate receiver")
		}
		seen[r.Homeserver] = true
		c := &courier{cfg: &cfg, to: r, client: client, file: positionFile(cfg.Dir, r)}
		if err == nil {
			_, err = c.load()
		}
		if err != nil {
			return nil, fmt.Errorf("receiver of homeserver %q: %w", r.Homeserver, err)
		}
		s.couriers = append(s.couriers, c)
	}
	return s, nil
}

func (c *Config) complete() {
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Transport == nil {
		c.Transport = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    2,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: maxReply,
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Wait == nil {
		c.Wait = wait
	}
	if c.Jitter == nil {
		c.Jitter = rand.Float64
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// check reports what is wrong with a receiver. It repeats neither URL nor
// header.
func (r *Receiver) check() error {
	u, err := url.Parse(r.URL)
	switch {
	case r.Homeserver == "":
		return errors.New("homeserver is missing")
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return errors.New("url is invalid, or has a user or a fragment")
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		return errors.New("url is neither https nor of a loopback address")
	case r.Audience == "":
		return errors.New("audience is missing")
	case strings.ContainsFunc(string(r.Authorization), func(c rune) bool { return c < ' ' || c > '~' }):
		return errors.New("authorization is not printable ASCII")
	}
	return nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// Run sends until ctx ends, and returns when nothing is under way any more. It
// may be called once; another Sender with a receiver of the same homeserver may
// run after it.
func (s *Sender) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, c := range s.couriers {
		all.Go(func() { c.run(ctx) })
	}
	all.Wait()
	if t, ok := s.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}
