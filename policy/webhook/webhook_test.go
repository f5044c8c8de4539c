package webhook_test

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/webhook"
)

const hookKey = "0123456789abcdef0123456789abcdef"

// newWebhook returns a webhook at address with a timeout of a minute; loopback addresses
// are allowed unless cfg has a list.
func newWebhook(t testing.TB, cfg webhook.Config, address string) *webhook.Webhook {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Name, cfg.URL, cfg.Key = "risk", u, secret.Bytes(hookKey)
	cfg.Timeout, cfg.MaxConcurrent = cmp.Or(cfg.Timeout, time.Minute), cmp.Or(cfg.MaxConcurrent, 64)
	if cfg.Allow == nil {
		cfg.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	return webhook.New(cfg)
}

// decide calls the webhook about a changed sample input.
func decide(t testing.TB, w *webhook.Webhook, change func(*policy.Input)) (policy.Decision, bool, error) {
	t.Helper()
	in := policy.SampleInput()
	if change != nil {
		change(in)
	}
	a, err := w.Decide(t.Context(), "p", "ask", in)
	return a.Decision, a.Settled, err
}

// answering returns a server with one answer.
func answering(t testing.TB, status int, contentType, body string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestQuestion(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	var got *http.Request
	var body []byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = io.WriteString(w, `{"effect":"allow","ttl":"9h","caveats":["risk low"],"labels":{"risk":"low"},"rule":"mine","hash":"mine"}`)
	}))
	defer s.Close()
	w := newWebhook(t, webhook.Config{}, s.URL+"/decide?x=1")
	w.SetClock(func() time.Time { return now })
	d, settled, err := decide(t, w, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !settled || d.Effect != policy.EffectAllow || d.TTL != 9*time.Hour || d.Rule != "" || d.Hash != "" || d.Labels["risk"] != "low" || d.Caveats[0] != "risk low" {
		t.Errorf("decision %+v, settled %v", d, settled)
	}
	mac := hmac.New(sha256.New, []byte(hookKey))
	fmt.Fprintf(mac, "%d.%s", now.Unix(), body)
	want := fmt.Sprintf("t=%d,v1=%s", now.Unix(), hex.EncodeToString(mac.Sum(nil)))
	if s := got.Header.Get("Discharger-Signature"); s != want {
		t.Errorf("signature %q, want %q", s, want)
	}
	if got.Method != http.MethodPost || got.URL.String() != "/decide?x=1" || got.Header.Get("Content-Type") != "application/json" || got.Header.Get("Discharger-Shadow") != "" {
		t.Errorf("request %s %s %v", got.Method, got.URL, got.Header)
	}
	var question struct {
		Version               int
		Webhook, Policy, Rule string
		Input                 policy.Input
	}
	if err := json.Unmarshal(body, &question); err != nil {
		t.Fatal(err)
	}
	sample := policy.SampleInput()
	if question.Version != 1 || question.Webhook != "risk" || question.Policy != "p" || question.Rule != "ask" || question.Input.Grant != sample.Grant || !question.Input.Now.Equal(sample.Now) {
		t.Errorf("question %+v", question)
	}
	if !strings.Contains(string(body), `"grant":{"ttl":"5m0s","max_ttl":"1h0m0s","revokes":false}`) || strings.Contains(string(body), `"expires"`) {
		t.Errorf("body %s", body)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	const kind = "application/json"
	tests := []struct {
		name       string
		status     int
		kind, body string
		want       string // effect, or part of the error
	}{
		{"deny", 200, kind, `{"effect":"deny","code":"risk_high","message":"No."}`, "deny"},
		{"revoke", 200, kind, `{"effect":"revoke"}`, "revoke"},
		{"no opinion", 204, "", "", "no opinion"},
		{"no effect", 200, kind, `{}`, "not a decision"},
		{"null", 200, kind, `null`, "not a decision"},
		{"another effect", 200, kind, `{"effect":"permit"}`, "not a decision"},
		{"unknown key", 200, kind, `{"effect":"allow","tll":"5m"}`, "unknown field"},
		{"ttl as a number", 200, kind, `{"effect":"allow","ttl":300}`, "want a string such as"},
		{"ttl of nothing", 200, kind, `{"effect":"allow","ttl":"1ms"}`, "ttl: want at least 1s, got"},
		{"negative ttl", 200, kind, `{"effect":"allow","ttl":"-5m"}`, "ttl: want at least 1s, got"},
		{"bad caveat", 200, kind, `{"effect":"allow","caveats":["a\nb"]}`, "caveat contains"},
		{"two values", 200, kind, `{"effect":"allow"}{"effect":"deny"}`, "trailing data after the decision"},
		{"no JSON", 200, kind, `allow`, "invalid character"},
		{"nothing", 200, kind, ``, "EOF"},
		{"text", 200, "text/plain", `{"effect":"allow"}`, `content type "text/plain"`},
		{"no type", 200, "", `{"effect":"allow"}`, "want application/json"},
		{"created", 201, kind, `{"effect":"allow"}`, "status 201"},
		{"forbidden", 403, kind, `{"effect":"allow"}`, "status 403"},
		{"broken", 500, kind, `{"effect":"allow"}`, "status 500"},
		{"large", 200, kind, `{"effect":"allow","message":"` + strings.Repeat("x", 64<<10) + `"}`, "more than 65536 bytes"},
		{"deep", 200, kind, strings.Repeat("[", 60000), "read answer"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWebhook(t, webhook.Config{}, answering(t, test.status, test.kind, test.body).URL)
			d, settled, err := decide(t, w, nil)
			got := string(d.Effect)
			if err != nil {
				got = err.Error()
				if !errors.Is(err, webhook.ErrNoAnswer) {
					t.Errorf("error %v, want ErrNoAnswer", err)
				}
			} else if !settled {
				got = "no opinion"
			}
			if !strings.Contains(got, test.want) || d.Effect == policy.EffectAllow {
				t.Errorf("got %s, want %s", got, test.want)
			}
			w = newWebhook(t, webhook.Config{Deny: true}, answering(t, test.status, test.kind, test.body).URL)
			if d, _, err := decide(t, w, nil); err != nil || d.Effect == policy.EffectAllow {
				t.Errorf("with on_error deny: %+v, %v", d, err)
			}
		})
	}
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	handlers := map[string]http.HandlerFunc{
		"hangs": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // the server notices a hang-up only then
			select {
			case <-release:
			case <-r.Context().Done():
			}
		},
		"streams": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, " "); err != nil {
					return
				}
				w.(http.Flusher).Flush()
			}
		},
		"redirects": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				t.Error("a redirect was followed")
			}
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
		"hangs up": func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				c.Close()
			}
		},
		"endless header": func(w http.ResponseWriter, r *http.Request) {
			for i := range 1000 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 100))
			}
		},
	}
	t.Cleanup(func() { close(release) })
	for name, handler := range handlers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(handler)
			t.Cleanup(s.Close)
			t.Cleanup(s.CloseClientConnections)
			cfg := webhook.Config{}
			if name == "hangs" || name == "streams" {
				cfg.Timeout = 100 * time.Millisecond
			}
			d, settled, err := decide(t, newWebhook(t, cfg, s.URL), nil)
			if !errors.Is(err, webhook.ErrNoAnswer) || d.Effect != "" || settled {
				t.Errorf("got %+v, %v", d, err)
			}
		})
	}
}

// observer counts calls of webhooks.
type observer struct {
	asked, failed, refused atomic.Int32
}

func (o *observer) WebhookCalled(_ string, _ time.Duration, err error) {
	o.asked.Add(1)
	if err != nil {
		o.failed.Add(1)
	}
}

func (o *observer) WebhookRefused(string, error) { o.refused.Add(1) }

// fakeClock is advanced by tests.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newClock() *fakeClock { return &fakeClock{now: time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)} }

func TestBreaker(t *testing.T) {
	t.Parallel()
	var works atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !works.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer s.Close()
	clock, seen := newClock(), &observer{}
	w := newWebhook(t, webhook.Config{Observe: seen}, s.URL)
	w.SetClock(clock.Now)
	call := func(n int) {
		for range n {
			_, _, _ = decide(t, w, nil)
		}
	}
	expect := func(when string, asked, refused int32) {
		t.Helper()
		if a, r := seen.asked.Swap(0), seen.refused.Swap(0); a != asked || r != refused {
			t.Errorf("%s: %d calls sent and %d refused, want %d and %d", when, a, r, asked, refused)
		}
	}
	call(20)
	expect("opened by five failures", 5, 15)
	clock.add(1250 * time.Millisecond)
	call(3)
	expect("one call after the first pause, which fails", 1, 2)
	clock.add(time.Second)
	call(3)
	expect("the second pause is longer", 0, 3)
	clock.add(1500 * time.Millisecond)
	works.Store(true)
	call(3)
	expect("closed by an answer", 3, 0)
	works.Store(false)
	call(4)
	expect("closed after four failures", 4, 0)
	works.Store(true)
	call(1)
	works.Store(false)
	call(4)
	expect("an answer resets the count of failures", 5, 0)
}

func TestCache(t *testing.T) {
	t.Parallel()
	var body atomic.Value
	body.Store(`{"effect":"allow","caveats":["a b"],"labels":{"x":"y"}}`)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if body.Load() == "" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body.Load().(string))
	}))
	defer s.Close()
	clock, seen := newClock(), &observer{}
	w := newWebhook(t, webhook.Config{Observe: seen, Cache: 30 * time.Second}, s.URL)
	w.SetClock(clock.Now)
	expect := func(name string, want int32, change func(*policy.Input)) {
		t.Helper()
		d, _, err := decide(t, w, change)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := seen.asked.Swap(0); got != want {
			t.Errorf("%s: %d calls, want %d", name, got, want)
		}
		for i := range d.Caveats {
			d.Caveats[i] = "changed"
		}
		for k := range d.Labels {
			d.Labels[k] = "changed"
		}
	}
	expect("the first time", 1, nil)
	expect("again", 0, nil)
	if d, _, _ := decide(t, w, nil); d.Caveats[0] != "a b" || d.Labels["x"] != "y" {
		t.Errorf("a caller changed the cached answer: %+v", d)
	}
	expect("another epoch", 0, func(in *policy.Input) {
		in.Session.Epoch++
		in.Now = in.Now.Add(time.Second)
		in.Session.LastUsed = in.Now
	})
	expect("another address", 1, func(in *policy.Input) { in.Request.IP = "192.0.2.2" })
	expect("another client", 1, func(in *policy.Input) { in.Request.Client = "other" })
	expect("another label", 1, func(in *policy.Input) { in.Session.Labels["x"] = "y" })
	expect("another session", 1, func(in *policy.Input) { in.Session.ID = "B" })
	expect("another grant", 1, func(in *policy.Input) { in.Grant.TTL = time.Minute })
	expect("another replay", 1, func(in *policy.Input) { in.Replay = policy.ReplayFork })
	clock.add(30 * time.Second)
	expect("after thirty seconds", 1, nil)
	for _, volatile := range []string{`{"effect":"revoke"}`, `{"effect":"reauth"}`, `{"effect":"revoke_user"}`, `{"effect":"defer"}`, `{"effect":"allow","keep_sessions":2}`} {
		clock.add(time.Minute)
		body.Store(volatile)
		expect(volatile, 1, nil)
		expect(volatile+" again", 1, nil)
	}
	clock.add(time.Minute)
	body.Store("")
	expect("no opinion", 1, nil)
	expect("no opinion, again", 0, nil)
	clock.add(time.Minute)
	body.Store("x")
	if _, _, err := decide(t, w, nil); err == nil {
		t.Error("malformed answer accepted")
	}
	body.Store(`{"effect":"deny"}`)
	expect("after an error", 2, nil) // the failed call above is one
}

func TestConcurrencyLimit(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}, 10), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-release
		w.WriteHeader(http.StatusNoContent)
	}))
	defer s.Close()
	seen := &observer{}
	w := newWebhook(t, webhook.Config{Observe: seen, MaxConcurrent: 2}, s.URL)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, _, err := decide(t, w, nil); err != nil {
				t.Error(err)
			}
		})
	}
	<-entered
	<-entered
	// Both slots are taken: a third caller waits until its context ends.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a, err := w.Decide(ctx, "p", "ask", policy.SampleInput())
	if !errors.Is(err, webhook.ErrNoAnswer) || !strings.Contains(err.Error(), "limit of 2 concurrent calls") {
		t.Errorf("got %+v, %v", a, err)
	}
	if len(entered) != 0 || seen.refused.Load() != 1 {
		t.Error("third call sent")
	}
	close(release)
	wg.Wait()
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // one client does not trust it
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	if d, settled, err := decide(t, newWebhook(t, webhook.Config{Roots: roots}, s.URL), nil); err != nil || settled {
		t.Errorf("with its certificate: %+v, %v", d, err)
	}
	if d, _, err := decide(t, newWebhook(t, webhook.Config{}, s.URL), nil); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without its certificate: %+v, %v", d, err)
	}
}

// TestInternalAddresses calls webhooks whose names resolve to this machine.
func TestInternalAddresses(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(secure.URL, "https://"), ":")
	for _, test := range []struct{ url, allow string }{
		{"https://127.0.0.1:" + port, ""},
		{"https://localhost:" + port, ""},
		{"https://[::ffff:127.0.0.1]:" + port, ""},
		{"https://0.0.0.0:" + port, ""},
		{"https://2130706433:" + port, ""}, // 127.0.0.1 as a number, for resolvers that accept it
		{plain.URL, "10.0.0.0/8"},
	} {
		t.Run(test.url, func(t *testing.T) {
			cfg := webhook.Config{Allow: []netip.Prefix{}}
			if test.allow != "" {
				cfg.Allow = append(cfg.Allow, netip.MustParsePrefix(test.allow))
			}
			d, _, err := decide(t, newWebhook(t, cfg, test.url), nil)
			if !errors.Is(err, webhook.ErrNoAnswer) || d.Effect != "" {
				t.Errorf("got %+v, %v", d, err)
			}
			if !strings.Contains(test.url, "2130706433") && !errors.Is(err, webhook.ErrAddress) {
				t.Errorf("error %v, want ErrAddress", err)
			}
		})
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("internal servers received %d requests", n)
	}
}

// TestProxyIsNotUsed sets proxies in the environment. A proxy would resolve names itself.
func TestProxyIsNotUsed(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("request to the proxy") }))
	defer proxy.Close()
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"} {
		t.Setenv(name, proxy.URL)
	}
	w := newWebhook(t, webhook.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.53.9.1/32")}}, "http://127.53.9.1:1/")
	if d, _, err := decide(t, w, nil); !errors.Is(err, webhook.ErrNoAnswer) {
		t.Errorf("got %+v, %v", d, err)
	}
}

func TestWebhookPrintsNoKey(t *testing.T) {
	t.Parallel()
	w := webhook.New(webhook.Config{Name: "hook", Key: secret.Bytes(hookKey), Offline: true})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if text := fmt.Sprintf(verb, w); text != "webhook hook" {
			t.Errorf("%s prints %q", verb, text)
		}
	}
}
