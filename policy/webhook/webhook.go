// Package webhook leaves a decision about a request to a program elsewhere.
//
// # Question
//
// A webhook is asked by POST with a JSON body:
//
//	{"version":1,"webhook":"risk","policy":"default","rule":"ask-risk","input":{…}}
//
// in which input is a [policy.Input]. The header Discharger-Signature holds
//
//	t=1767225600,v1=<hex>
//
// where v1 is the HMAC-SHA256, under the webhook's key, of the decimal t, a
// full stop and the body. A receiver checks it in constant time and refuses a
// t that is more than some minutes off, so that a recorded question is worth
// nothing later. Questions of a candidate that is only compared have the
// header Discharger-Shadow: 1.
//
// # Answer
//
// A webhook answers 200 and a [policy.Decision] as application/json, or 204 for
// no opinion: the rules after this one then decide. Anything else is no answer:
// keys that a decision does not have, more than 64 KiB, an answer after the
// timeout. No answer leaves the request undecided, or denies it if
// [Config.Deny] is set.
//
// # Protection
//
// Names are resolved by this package and each address is checked before a
// connection is made, so that a name cannot be pointed at the inside of a
// network. Redirects are not followed and no proxy is used. A webhook that
// fails five times in a row is not asked for a while, and the number of
// questions at once is bounded.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/policy"
)

const (
	signatureHeader = "Discharger-Signature"
	shadowHeader    = "Discharger-Shadow"
	maxReply        = 64 << 10 // bytes
)

// ErrNoAnswer is wrapped by every error of asking a webhook.
var ErrNoAnswer = errors.New("webhook gave no answer")

// ErrOffline is the error of a webhook that is never asked.
var ErrOffline = errors.New("webhooks are not asked here")

// An Observer is notified of questions, for logs and metrics. Its methods are
// called concurrently, while requests wait, and return at once.
type Observer interface {
	// WebhookAsked reports a question that was sent, how long the answer
	// took, and the error if there was none.
	WebhookAsked(name string, took time.Duration, err error)

	// WebhookRefused reports a question that was not sent: the breaker is
	// open, or too many questions are waiting.
	WebhookRefused(name string, err error)
}

type unobserved struct{}

func (unobserved) WebhookAsked(string, time.Duration, error) {}
func (unobserved) WebhookRefused(string, error)              {}

// Config describes a webhook. Name, URL, Key, Timeout and MaxConcurrent are
// required, except that an offline webhook only needs its name.
type Config struct {
	Name          string
	URL           *url.URL
	Key           secret.Bytes   // signs questions
	Roots         *x509.CertPool // authorities of its certificate; nil: the system's
	Timeout       time.Duration
	Cache         time.Duration  // how long an answer is reused; 0: it is not
	Deny          bool           // deny where there is no answer
	Allow         []netip.Prefix // networks it may be in, beside the public Internet for https
	MaxConcurrent int
	CountSessions bool // questions have user.sessions
	Offline       bool // it is never asked, and fails with ErrOffline
	Observe       Observer
}

// A Webhook asks a program elsewhere to decide. Concurrent use is safe.
type Webhook struct {
	cfg     Config
	client  *http.Client
	slots   chan struct{}
	breaker *breaker
	answers *answers // nil: answers are not kept
	now     func() time.Time
}

// New prepares a webhook. Nothing is sent.
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
			Proxy:                  nil, // a proxy would resolve names where no filter sees it
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

// Decide asks the webhook, unless the answer is known. The decision is not
// settled if the webhook has no opinion.
func (w *Webhook) Decide(ctx context.Context, name, rule string, in *policy.Input) (policy.Decision, bool, error) {
	if stub, ok := stubbed(ctx, w); ok {
		return w.result(ctx, stub.Answer, stub.Err)
	}
	if w.client == nil {
		return policy.Decision{}, false, w.wrap(ErrOffline)
	}
	if w.cfg.CountSessions {
		if _, err := in.CountSessions(ctx); err != nil {
			return policy.Decision{}, false, err
		}
	}
	var key cacheKey
	if w.answers != nil {
		key = keyOf(name, rule, in)
		if a, ok := w.answers.get(key, w.now()); ok {
			return a.Decision, a.Settled, nil
		}
	}
	a, err := w.ask(ctx, name, rule, in)
	if err == nil && w.answers != nil && a.cacheable() {
		w.answers.put(key, a, w.now())
	}
	return w.result(ctx, a, err)
}

// result turns an error into what on_error says. That a caller went away, or
// that nobody was asked on purpose, is no failure of the webhook.
func (w *Webhook) result(ctx context.Context, a Answer, err error) (policy.Decision, bool, error) {
	switch {
	case err == nil:
		return a.Decision, a.Settled, nil
	case w.cfg.Deny && ctx.Err() == nil && !errors.Is(err, ErrOffline):
		return policy.Decision{Effect: policy.EffectDeny, Code: "webhook_unavailable"}, true, nil
	}
	return policy.Decision{}, false, w.wrap(err)
}

func (w *Webhook) wrap(err error) error {
	return fmt.Errorf("%w: %s: %w", ErrNoAnswer, w.cfg.Name, err)
}

// cacheable says whether an answer may stand for a while. What ends sessions
// or depends on the moment may not.
func (a Answer) cacheable() bool {
	return !a.Settled || a.Decision.KeepSessions == 0 && (a.Decision.Effect == policy.EffectAllow || a.Decision.Effect == policy.EffectDeny)
}

// ask goes through the breaker and the limit of concurrent questions.
func (w *Webhook) ask(ctx context.Context, name, rule string, in *policy.Input) (Answer, error) {
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
	how := answered
	if err != nil && caller.Err() != nil {
		how = abandoned
	} else if err != nil {
		how = failed
	}
	w.breaker.leave(w.now(), how)
	w.cfg.Observe.WebhookAsked(w.cfg.Name, w.now().Sub(began), err)
	return a, err
}

// question is the body that a webhook is sent.
type question struct {
	Version int           `json:"version"`
	Webhook string        `json:"webhook"`
	Policy  string        `json:"policy"`
	Rule    string        `json:"rule"`
	Input   *policy.Input `json:"input"`
}

func (w *Webhook) post(ctx context.Context, name, rule string, in *policy.Input) (Answer, error) {
	body, err := json.Marshal(question{Version: 1, Webhook: w.cfg.Name, Policy: name, Rule: rule, Input: in})
	if err != nil {
		return Answer{}, fmt.Errorf("write question: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL.String(), bytes.NewReader(body))
	if err != nil {
		return Answer{}, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "discharger")
	req.Header.Set(signatureHeader, sign(w.cfg.Key, w.now(), body))
	if isShadow(ctx) {
		req.Header.Set(shadowHeader, "1")
	}
	res, err := w.client.Do(req)
	if err != nil {
		return Answer{}, fmt.Errorf("send question: %w", err)
	}
	defer res.Body.Close()
	return readAnswer(res)
}

// sign makes the signature header.
func sign(key secret.Bytes, now time.Time, body []byte) string {
	t := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(t))
	mac.Write([]byte{'.'})
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// readAnswer reads a webhook's answer.
func readAnswer(res *http.Response) (Answer, error) {
	switch res.StatusCode {
	case http.StatusNoContent:
		return Answer{}, nil
	case http.StatusOK:
	default:
		return Answer{}, fmt.Errorf("status %d", res.StatusCode)
	}
	if kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return Answer{}, fmt.Errorf("the answer is %.60q, not application/json", res.Header.Get("Content-Type"))
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	if err != nil {
		return Answer{}, fmt.Errorf("read answer: %w", err)
	}
	if len(data) > maxReply {
		return Answer{}, fmt.Errorf("the answer has more than %d bytes", maxReply)
	}
	d, err := policy.ParseDecision(data)
	if err != nil {
		return Answer{}, fmt.Errorf("read answer: %w", err)
	}
	return Answer{d, true}, nil
}
