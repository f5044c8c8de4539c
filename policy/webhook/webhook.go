// Package webhook calls external programs that decide about requests.
//
// # Request
//
// A webhook receives a POST with a JSON body:
//
//	{"version":1,"webhook":"risk","policy":"default","rule":"ask-risk","input":{…}}
//
// in which input is a [policy.Input]. The header Discharger-Signature is
//
//	t=1767225600,v1=<hex>
//
// where v1 is the HMAC-SHA256, under the webhook's key, of the decimal t, a full stop and
// the body. A receiver compares it in constant time and refuses a t that is more than a
// few minutes off, so that a recorded request cannot be replayed later. Requests for a
// candidate that is only compared carry the header Discharger-Shadow: 1.
//
// # Answer
//
// A webhook answers 200 and a [policy.Decision] as application/json, or 204 for no
// opinion: the next rules of the policy decide then. Every other response is an error: a
// key that a decision does not have, more than 64 KiB, an answer after the timeout. An
// error leaves the request undecided, or denies it if [Config.Deny] is set.
//
// # Protection
//
// This package resolves names itself and checks each address before it connects, so that
// a name cannot point into an internal network. It follows no redirects and uses no
// proxy. After five failures in a row a webhook is not called for a pause, and the number
// of concurrent calls is bounded.
package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/policy"
)

const (
	signatureHeader = "Discharger-Signature"
	shadowHeader    = "Discharger-Shadow"
	maxReply        = 64 << 10 // bytes
)

// ErrNoAnswer is wrapped by every error of [Webhook.Decide] except that of counting
// sessions.
var ErrNoAnswer = errors.New("no answer from webhook")

// ErrOffline is the error of an offline webhook, and of one without a stub in a test.
var ErrOffline = errors.New("webhook calls are disabled")

// An Observer receives events for logs and metrics. Its methods are
// called concurrently, while requests wait, and return at once.
type Observer interface {
	// WebhookCalled reports a call that was sent, the time until its answer, and
	// the error if there was none.
	WebhookCalled(name string, took time.Duration, err error)

	// WebhookRefused reports a call that was not sent: the breaker is
	// open, or the limit of concurrent calls is reached.
	WebhookRefused(name string, err error)
}

type unobserved struct{}

func (unobserved) WebhookCalled(string, time.Duration, error) {}
func (unobserved) WebhookRefused(string, error)               {}

// Config configures a [Webhook]. Name, URL, Key, Timeout and MaxConcurrent are
// required; an offline webhook needs only its name.
type Config struct {
	Name          string
	URL           *url.URL
	Key           secret.Bytes   // signs requests
	Roots         *x509.CertPool // authorities of its certificate; nil: the system's
	Timeout       time.Duration  // of a call, waiting for a slot included
	Cache         time.Duration  // time during which an answer is reused; 0: none
	Deny          bool           // deny on an error
	Allow         []netip.Prefix // allowed networks, beside the public Internet for https
	MaxConcurrent int            // calls at once
	CountSessions bool           // send user.sessions
	Offline       bool           // send no calls; Decide fails with ErrOffline
	Observe       Observer       // nil: none
}

// A Webhook is the client of an external program that decides. It may be used
// concurrently.
type Webhook struct {
	cfg     Config
	client  *http.Client
	slots   chan struct{}
	breaker *breaker
	answers *answers // nil: no cache
	now     func() time.Time
}

// Format writes the name and no secret, for every verb.
func (w *Webhook) Format(s fmt.State, _ rune) { io.WriteString(s, "webhook "+w.cfg.Name) }

// New returns a client without sending anything.
func New(cfg Config) *Webhook {
	if cfg.Observe == nil {
		cfg.Observe = unobserved{}
	}
	w := &Webhook{cfg: cfg, breaker: newBreaker(), now: time.Now}
	if cfg.Offline {
		return w
	}
	w.client = &http.Client{
		Transport: &http.Transport{
			Proxy:                  nil, // a proxy would resolve names itself
			DialContext:            newDialer(cfg.Allow, cfg.URL.Scheme == "https", cfg.Timeout).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots},
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
			MaxIdleConnsPerHost:    cfg.MaxConcurrent,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	w.slots = make(chan struct{}, cfg.MaxConcurrent)
	if cfg.Cache > 0 {
		w.answers = newAnswers(cfg.Cache)
	}
	return w
}

// Decide returns the answer of the webhook for a rule of the named policy, from the cache
// or by a call. The decision is not narrowed.
func (w *Webhook) Decide(ctx context.Context, name, rule string, in *policy.Input) (Answer, error) {
	if stub, ok := stubbed(ctx, w); ok {
		return w.result(ctx, stub.Answer, stub.Err)
	}
	if w.client == nil {
		return Answer{}, w.wrap(ErrOffline)
	}
	if w.cfg.CountSessions {
		if _, err := in.CountSessions(ctx); err != nil {
			return Answer{}, err
		}
	}
	var key cacheKey
	if w.answers != nil {
		key = keyOf(name, rule, in)
		if a, ok := w.answers.get(key, w.now()); ok {
			return a, nil
		}
	}
	a, err := w.call(ctx, name, rule, in)
	if err == nil && w.answers != nil && a.cacheable() {
		w.answers.put(key, a, w.now())
	}
	return w.result(ctx, a, err)
}

// result applies on_error to an error. The end of the caller's context and ErrOffline
// are no failures of the webhook, and stay errors.
func (w *Webhook) result(ctx context.Context, a Answer, err error) (Answer, error) {
	switch {
	case err == nil:
		return a, nil
	case w.cfg.Deny && ctx.Err() == nil && !errors.Is(err, ErrOffline):
		return Answer{policy.Decision{Effect: policy.EffectDeny, Code: "webhook_unavailable"}, true}, nil
	}
	return Answer{}, w.wrap(err)
}

func (w *Webhook) wrap(err error) error {
	return fmt.Errorf("%w: %s: %w", ErrNoAnswer, w.cfg.Name, err)
}

// cacheable reports whether an answer may be reused. A decision that ends sessions
// or defers the request may not.
func (a Answer) cacheable() bool {
	return !a.Settled || a.Decision.KeepSessions == 0 && (a.Decision.Effect == policy.EffectAllow || a.Decision.Effect == policy.EffectDeny)
}

// call sends a request unless the breaker is open or the limit of concurrent calls is
// reached.
func (w *Webhook) call(ctx context.Context, name, rule string, in *policy.Input) (Answer, error) {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	if err := w.breaker.enter(w.now()); err != nil {
		w.cfg.Observe.WebhookRefused(w.cfg.Name, err)
		return Answer{}, err
	}
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	case <-ctx.Done():
		w.breaker.leave(w.now(), abandoned)
		err := fmt.Errorf("limit of %d concurrent calls reached", cap(w.slots))
		w.cfg.Observe.WebhookRefused(w.cfg.Name, err)
		return Answer{}, err
	}
	began := w.now()
	a, err := w.post(ctx, name, rule, in)
	r := answered
	if err != nil && caller.Err() != nil {
		r = abandoned
	} else if err != nil {
		r = failed
	}
	w.breaker.leave(w.now(), r)
	w.cfg.Observe.WebhookCalled(w.cfg.Name, w.now().Sub(began), err)
	return a, err
}

func (w *Webhook) post(ctx context.Context, name, rule string, in *policy.Input) (Answer, error) {
	data, err := json.Marshal(struct {
		Version int           `json:"version"`
		Webhook string        `json:"webhook"`
		Policy  string        `json:"policy"`
		Rule    string        `json:"rule"`
		Input   *policy.Input `json:"input"`
	}{1, w.cfg.Name, name, rule, in})
	if err != nil {
		return Answer{}, fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL.String(), bytes.NewReader(data))
	if err != nil {
		return Answer{}, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "discharger")
	req.Header.Set(signatureHeader, sign(w.cfg.Key, w.now(), data))
	if ctx.Value(shadowKey{}) != nil {
		req.Header.Set(shadowHeader, "1")
	}
	res, err := w.client.Do(req)
	if err != nil {
		return Answer{}, fmt.Errorf("send request: %w", err)
	}
	defer res.Body.Close()
	return readAnswer(res)
}

func readAnswer(res *http.Response) (Answer, error) {
	if res.StatusCode == http.StatusNoContent {
		return Answer{}, nil
	}
	if res.StatusCode != http.StatusOK {
		return Answer{}, fmt.Errorf("status %d", res.StatusCode)
	}
	kind := res.Header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(kind); err != nil || media != "application/json" {
		return Answer{}, fmt.Errorf("content type %.60q, want application/json", kind)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	if err != nil {
		return Answer{}, fmt.Errorf("read answer: %w", err)
	}
	if len(data) > maxReply {
		return Answer{}, fmt.Errorf("answer has more than %d bytes", maxReply)
	}
	d, err := policy.ParseDecision(data)
	if err != nil {
		return Answer{}, fmt.Errorf("read answer: %w", err)
	}
	return Answer{d, true}, nil
}

// An Answer is the response of a webhook.
type Answer struct {
	Decision policy.Decision
	Settled  bool // false: no opinion
}

// A Stub replaces the response of a webhook in a test: an answer, or an error.
type Stub struct {
	Answer
	Err error
}

type stubsKey struct{}

// WithStubs returns a context in which webhooks answer from stubs, by name, without a
// call. A webhook without a stub fails with [ErrOffline].
func WithStubs(ctx context.Context, stubs map[string]Stub) context.Context {
	return context.WithValue(ctx, stubsKey{}, stubs)
}

// stubbed returns the stub of a webhook if the context has stubs.
func stubbed(ctx context.Context, w *Webhook) (stub Stub, ok bool) {
	stubs, ok := ctx.Value(stubsKey{}).(map[string]Stub)
	if stub, given := stubs[w.cfg.Name]; given {
		return stub, true
	}
	return Stub{Err: ErrOffline}, ok
}

type shadowKey struct{}

// WithShadow returns a context in which calls carry the header Discharger-Shadow.
func WithShadow(ctx context.Context) context.Context {
	return context.WithValue(ctx, shadowKey{}, true)
}
