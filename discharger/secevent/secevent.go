// Package secevent sends revocations to other systems as standard security
// events: each revocation in a homeserver's feed becomes a signed security event
// token, which is pushed to the homeserver's receiver.
//
// # The token
//
// Each event is one POST (RFC 8935) of content type application/secevent+jwt. The
// token (RFC 8417) is signed with RS256, as the CAEP interoperability profile
// requires, and has these members:
//
//	header   typ: secevent+jwt   kid: the published key that signed
//	iss      public URL of the service
//	aud      audience of the receiver
//	iat      time of signing
//	jti      identifies the event: equal in every repetition, by any process
//	sub_id   the sessions, as a complex subject (OpenID SSF 1.0, RFC 9493)
//	events   one CAEP session-revoked: event_timestamp, initiating_entity and
//	         reason_admin
//
// It has no sub, which is for subjects without a format, and no exp, since a
// session that ended stays ended. The members of the subject are
//
//	one session               session; user and device, if known
//	sessions of a device      user, device
//	sessions of a user        user
//	sessions of a homeserver  tenant: the homeserver's name
//
// A user is an iss_sub, the form that the profile requires of receivers: the issuer
// and the homeserver's name of the user. The others are opaque. CAEP defines no
// part of a subject and no kind of end. The event has members of our own for them,
// [MemberExcept], [MemberDevices] and [MemberKind]. A receiver that ignores the
// first two ends those sessions too.
//
// # Delivery
//
// Events are delivered at least once, in the order of the feed. An event is done when the
// receiver answers 202 or 200. One that it rejects (400 and a body with err, RFC 8935,
// section 2.4) is logged, counted and skipped: the same token would be rejected again.
// Three codes concern our authentication and are retried: authentication_failed,
// access_denied and invalid_key, the answer of a receiver that has not fetched a new key
// yet. After these, and after any other answer or none, the same token is sent again
// after a growing, randomized pause. Redirects are not followed. The position in the feed
// is in a file that is written after each event: an event that was sent before a crash
// may be sent again, with the same jti.
//
// Receivers are independent of each other, and no revocation waits for one. If
// several processes send, receivers drop duplicates by jti.
//
// A feed keeps events about as long as discharges live, an hour by default. Events
// that a receiver missed by then are logged and counted as a gap.
//
// The package never logs a token, a header or a URL, and prints no key.
package secevent

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/store"
)

// Config configures a [Sender]. Feed, Issuer, Keys and Dir are required.
type Config struct {
	Feed      store.Feed
	Receivers []Receiver
	Issuer    string // "iss": public URL of the service
	Keys      *Keys
	Dir       string // existing directory for the positions of receivers

	Timeout   time.Duration     // of one POST, answer included; 0: 10 s
	Transport http.RoundTripper // nil: one of its own, with TLS 1.2 or later
	Metrics   *Metrics          // nil: nothing is counted
	Log       *slog.Logger      // nil: nothing is logged
}

// Receiver receives the revocations of one homeserver's sessions.
type Receiver struct {
	Homeserver    string       // whose feed is sent
	URL           string       // https, or http to a loopback address
	Audience      string       // "aud"
	Authorization secret.Bytes // value of the header Authorization; empty: none
}

// Sender sends the entries of feeds to receivers.
type Sender struct {
	workers   []*worker
	transport http.RoundTripper
}

// New checks the configuration and reads the position of each receiver. Nothing is
// sent before [Sender.Run].
func New(cfg Config) (*Sender, error) {
	switch {
	case cfg.Feed == nil:
		return nil, errors.New("feed is missing")
	case cfg.Issuer == "":
		return nil, errors.New("issuer is missing")
	case cfg.Keys == nil:
		return nil, errors.New("signing keys are missing")
	case cfg.Dir == "":
		return nil, errors.New("directory is missing")
	case cfg.Timeout < 0:
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
		w := &worker{cfg: &cfg, to: r, client: client, file: positionFile(cfg.Dir, r)}
		if err == nil {
			_, err = w.loadPosition()
		}
		if err != nil {
			return nil, fmt.Errorf("receiver of homeserver %q: %w", r.Homeserver, err)
		}
		s.workers = append(s.workers, w)
	}
	return s, nil
}

func (c *Config) complete() {
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	if c.Metrics == nil {
		c.Metrics, _ = NewMetrics(prometheus.NewRegistry()) // an empty registry accepts them
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
}

// check returns an error that contains neither URL nor header.
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

// Run sends until ctx ends, and returns when no request is open. It may be called
// once. Another Sender with a receiver of the same homeserver may run after it.
func (s *Sender) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, w := range s.workers {
		all.Go(func() { w.run(ctx) })
	}
	all.Wait()
	if t, ok := s.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}
