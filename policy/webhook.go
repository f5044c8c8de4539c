package policy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// A webhook is asked by POST with a JSON body:
//
//	{"version":1,"webhook":"risk","policy":"default","rule":"ask-risk","input":{…}}
//
// in which input is an [Input]. The header Discharger-Signature holds
//
//	t=1767225600,v1=<hex>
//
// where v1 is the HMAC-SHA256, under the webhook's key, of the decimal t, a
// full stop and the body. A receiver checks it in constant time and refuses a
// t that is more than some minutes off, so that a recorded question is worth
// nothing later.
//
// It answers 200 and a [Decision] as application/json, or 204 for no opinion:
// the rules after this one then decide. Anything else, an answer with keys
// that a decision does not have, one of more than 64 KiB or after the
// timeout, is no answer.
const (
	signatureHeader = "Discharger-Signature"
	shadowHeader    = "Discharger-Shadow"
	maxHookReply    = 64 << 10
)

// ErrWebhook is wrapped by every error of asking a webhook.
var ErrWebhook = errors.New("webhook gave no answer")

// A webhook asks a program elsewhere to decide.
type webhook struct {
	name          string
	def           *webhookDef
	key           secret
	timeout       time.Duration
	client        *http.Client // nil: offline
	slots         chan struct{}
	breaker       *breaker
	cache         *hookCache // nil: answers are not kept
	now           func() time.Time
	observe       Observer
	countSessions bool
}

// webhook prepares a webhook, reporting what is wrong with the files it names.
// Offline, it only knows its name.
func (l *loader) webhook(def *webhookDef, src *source) *webhook {
	w := &webhook{
		name: def.name, def: def, now: l.cfg.Now, observe: observer(l.cfg.Observe), countSessions: def.countSessions,
		timeout: cmp.Or(l.cfg.hookPatience, def.timeout),
	}
	if l.cfg.Offline || src.failed() {
		return w
	}
	var err error
	if w.key, err = l.readSecret(beside(src.name, def.secretFile.Value)); err != nil {
		src.errorAt(def.secretFile, "read key: %v", err)
		return w
	}
	roots := &tls.Config{MinVersion: tls.VersionTLS12}
	if def.caFile != nil {
		if roots.RootCAs, err = l.readCAs(beside(src.name, def.caFile.Value)); err != nil {
			src.errorAt(def.caFile, "read certificates: %v", err)
			return w
		}
	}
	w.client = &http.Client{
		Transport: &http.Transport{
			Proxy:                  nil, // a proxy would resolve names where no filter sees it
			DialContext:            newDialer(def.allow, def.url.Scheme == "https", w.timeout).DialContext,
			TLSClientConfig:        roots,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
			MaxIdleConnsPerHost:    def.maxConcurrent,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	w.slots = make(chan struct{}, def.maxConcurrent)
	w.breaker = &breaker{}
	if def.cache > 0 {
		w.cache = newHookCache(def.cache)
	}
	return w
}

// errOffline is why a webhook of a set that was loaded offline has no answer.
var errOffline = errors.New("webhooks are not asked here")

// decide asks the webhook, or the cache. It is not settled when the webhook
// has no opinion.
func (w *webhook) decide(ctx context.Context, policy, rule string, in *Input) (Decision, bool, error) {
	if stub, ok := stubbed(ctx, w); ok {
		return w.result(ctx, stub.answer, stub.err)
	}
	if w.client == nil {
		return Decision{}, false, w.wrap(errOffline)
	}
	var key cacheKey
	if w.cache != nil {
		key = keyOf(policy, rule, in)
		if a, ok := w.cache.get(key, w.now()); ok {
			return a.decision, a.settled, nil
		}
	}
	a, err := w.ask(ctx, policy, rule, in)
	if err == nil && w.cache != nil && a.cacheable() {
		w.cache.put(key, a, w.now())
	}
	return w.result(ctx, a, err)
}

// result turns an error into what on_error says. That a caller went away, or
// that nobody was asked on purpose, is no failure of the webhook.
func (w *webhook) result(ctx context.Context, a answer, err error) (Decision, bool, error) {
	switch {
	case err == nil:
		return a.decision, a.settled, nil
	case w.def.deny && ctx.Err() == nil && !errors.Is(err, errOffline):
		return Decision{Effect: EffectDeny, Code: "webhook_unavailable"}, true, nil
	}
	return Decision{}, false, w.wrap(err)
}

func (w *webhook) wrap(err error) error { return fmt.Errorf("%w: %s: %w", ErrWebhook, w.name, err) }

// An answer is what a webhook said.
type answer struct {
	decision Decision
	settled  bool // false: no opinion
}

// cacheable says whether an answer may stand for a while. What ends sessions
// or depends on the moment may not.
func (a answer) cacheable() bool {
	return !a.settled || a.decision.KeepSessions == 0 && (a.decision.Effect == EffectAllow || a.decision.Effect == EffectDeny)
}

// ask goes through the breaker and the limit of concurrent questions.
func (w *webhook) ask(ctx context.Context, policy, rule string, in *Input) (answer, error) {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	if err := w.breaker.enter(w.now()); err != nil {
		w.observe.WebhookRefused(w.name, err)
		return answer{}, err
	}
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	case <-ctx.Done():
		w.breaker.leave(w.now(), untold)
		err := fmt.Errorf("%d questions are waiting already", cap(w.slots))
		w.observe.WebhookRefused(w.name, err)
		return answer{}, err
	}
	began := w.now()
	a, err := w.post(ctx, policy, rule, in)
	how := answered
	if err != nil && caller.Err() != nil {
		how = untold
	} else if err != nil {
		how = failed
	}
	w.breaker.leave(w.now(), how)
	w.observe.WebhookAsked(w.name, w.now().Sub(began), err)
	return a, err
}

// question is the body that a webhook is sent.
type question struct {
	Version int    `json:"version"`
	Webhook string `json:"webhook"`
	Policy  string `json:"policy"`
	Rule    string `json:"rule"`
	Input   *Input `json:"input"`
}

func (w *webhook) post(ctx context.Context, policy, rule string, in *Input) (answer, error) {
	body, err := json.Marshal(question{Version: 1, Webhook: w.name, Policy: policy, Rule: rule, Input: in})
	if err != nil {
		return answer{}, fmt.Errorf("write question: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.def.url.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "discharger")
	req.Header.Set(signatureHeader, sign(w.key, w.now(), body))
	if isShadow(ctx) {
		req.Header.Set(shadowHeader, "1")
	}
	res, err := w.client.Do(req)
	if err != nil {
		return answer{}, fmt.Errorf("send question: %w", err)
	}
	defer res.Body.Close()
	return readAnswer(res)
}

// sign makes the signature header.
func sign(key secret, now time.Time, body []byte) string {
	t := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(t))
	mac.Write([]byte{'.'})
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// readAnswer reads a webhook's answer.
func readAnswer(res *http.Response) (answer, error) {
	switch res.StatusCode {
	case http.StatusNoContent:
		return answer{}, nil
	case http.StatusOK:
	default:
		return answer{}, fmt.Errorf("status %d", res.StatusCode)
	}
	if kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return answer{}, fmt.Errorf("the answer is %q, not application/json", shorten(res.Header.Get("Content-Type")))
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxHookReply+1))
	if err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	if len(data) > maxHookReply {
		return answer{}, fmt.Errorf("the answer has more than %d bytes", maxHookReply)
	}
	d, err := parseDecision(data)
	if err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	return answer{d, true}, nil
}

// parseDecision reads a decision strictly: one JSON object, no key that a
// decision does not have, an effect that exists.
func parseDecision(data []byte) (Decision, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var j jsonDecision
	if err := decoder.Decode(&j); err != nil {
		return Decision{}, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Decision{}, errors.New("there is more after the decision")
	}
	d := j.decision()
	if d.TTL != 0 && d.TTL < minTTL {
		return Decision{}, fmt.Errorf("ttl is at least %s, not %s", minTTL, d.TTL)
	}
	d.Rule, d.Hash = "", ""
	// The grant is not known here; what is checked is what no grant allows.
	if _, err := d.Narrow(Grant{TTL: minTTL, MaxTTL: minTTL}); err != nil {
		return Decision{}, err
	}
	return d, nil
}
