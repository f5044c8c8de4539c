package rules_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/check"
	"github.com/discharger/discharger/policy/rules"
	"github.com/discharger/discharger/policy/webhook"
)

const hookKey = "0123456789abcdef0123456789abcdef"

// hooked loads a policy whose first rule asks a webhook at url. options are
// further lines of the webhook. Without a timeout among them, it is waited for.
func hooked(t testing.TB, cfg rules.Config, url string, options ...string) (*rules.Set, error) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "key"), hookKey+"\n")
	file := filepath.Join(dir, "p.yaml")
	text := "version: 1\nwebhooks:\n  risk:\n    url: " + url + "\n    secret_file: key\n"
	for _, o := range options {
		text += "    " + o + "\n"
	}
	text += `policies:
  p:
    rules:
      - {name: ask, when: session.epoch > 0, then: {webhook: risk}}
      - {name: next, when: session.epoch > 1, then: {effect: deny, code: next}}
    otherwise: allow
`
	write(t, file, text)
	cfg.Files, cfg.OnlyFiles = []string{file}, true
	if !strings.Contains(text, "timeout:") {
		cfg = cfg.Patient()
	}
	return rules.Load(cfg)
}

func write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const allowLoopback = "allow: [127.0.0.0/8, '::1']"

// answering is a webhook that gives one answer.
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

func TestWebhookQuestion(t *testing.T) {
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
	set, err := hooked(t, rules.Config{Now: func() time.Time { return now }}, s.URL+"/decide?x=1", allowLoopback)
	if err != nil {
		t.Fatal(err)
	}
	d, err := evaluate(t, set, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d.Effect != policy.EffectAllow || d.TTL != time.Hour || d.Rule != "p/ask" || d.Hash != set.Hash() || d.Labels["risk"] != "low" || d.Caveats[0] != "risk low" {
		t.Errorf("decided %+v", d)
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

func TestWebhookAnswers(t *testing.T) {
	t.Parallel()
	const kind = "application/json"
	tests := []struct {
		name       string
		status     int
		kind, body string
		want       string // effect and rule, or part of the error
	}{
		{"deny", 200, kind, `{"effect":"deny","code":"risk_high","message":"No."}`, "deny p/ask"},
		{"revoke", 200, kind, `{"effect":"revoke"}`, "revoke p/ask"},
		{"no opinion", 204, "", "", "deny p/next"},
		{"no effect", 200, kind, `{}`, "not a decision"},
		{"null", 200, kind, `null`, "not a decision"},
		{"another effect", 200, kind, `{"effect":"permit"}`, "not a decision"},
		{"unknown key", 200, kind, `{"effect":"allow","tll":"5m"}`, "unknown field"},
		{"ttl as a number", 200, kind, `{"effect":"allow","ttl":300}`, "a duration is a string"},
		{"ttl of nothing", 200, kind, `{"effect":"allow","ttl":"1ms"}`, "ttl is at least 1s"},
		{"negative ttl", 200, kind, `{"effect":"allow","ttl":"-5m"}`, "ttl is at least 1s"},
		{"bad caveat", 200, kind, `{"effect":"allow","caveats":["a\nb"]}`, "the caveat has the character"},
		{"two values", 200, kind, `{"effect":"allow"}{"effect":"deny"}`, "there is more after the decision"},
		{"no JSON", 200, kind, `allow`, "invalid character"},
		{"nothing", 200, kind, ``, "EOF"},
		{"text", 200, "text/plain", `{"effect":"allow"}`, `the answer is "text/plain"`},
		{"no type", 200, "", `{"effect":"allow"}`, "not application/json"},
		{"created", 201, kind, `{"effect":"allow"}`, "status 201"},
		{"forbidden", 403, kind, `{"effect":"allow"}`, "status 403"},
		{"broken", 500, kind, `{"effect":"allow"}`, "status 500"},
		{"large", 200, kind, `{"effect":"allow","message":"` + strings.Repeat("x", 64<<10) + `"}`, "more than 65536 bytes"},
		{"deep", 200, kind, strings.Repeat("[", 60000), "read answer"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			set, err := hooked(t, rules.Config{}, answering(t, test.status, test.kind, test.body).URL, allowLoopback)
			if err != nil {
				t.Fatal(err)
			}
			d, err := evaluate(t, set, nil)
			got := string(d.Effect) + " " + d.Rule
			if err != nil {
				got = err.Error()
				if !errors.Is(err, webhook.ErrNoAnswer) {
					t.Errorf("%v is no ErrWebhook", err)
				}
			}
			if !strings.Contains(got, test.want) || d.Effect == policy.EffectAllow {
				t.Errorf("got %s, want %s", got, test.want)
			}
			denying, err := hooked(t, rules.Config{}, answering(t, test.status, test.kind, test.body).URL, allowLoopback, "on_error: deny")
			if err != nil {
				t.Fatal(err)
			}
			if d, err := evaluate(t, denying, nil); err != nil || d.Effect == policy.EffectAllow {
				t.Errorf("with on_error deny: %+v, %v", d, err)
			}
		})
	}
}

func TestWebhookThatDoesNotAnswer(t *testing.T) {
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
			options := []string{allowLoopback}
			if name == "hangs" || name == "streams" {
				options = append(options, "timeout: 100ms")
			}
			set, err := hooked(t, rules.Config{}, s.URL, options...)
			if err != nil {
				t.Fatal(err)
			}
			if d, err := evaluate(t, set, nil); !errors.Is(err, webhook.ErrNoAnswer) || d.Effect != "" {
				t.Errorf("got %+v, %v", d, err)
			}
		})
	}
}

// hookObserver counts what webhooks do.
type hookObserver struct {
	asked, failed, refused atomic.Int32
}

func (o *hookObserver) WebhookAsked(_ string, _ time.Duration, err error) {
	o.asked.Add(1)
	if err != nil {
		o.failed.Add(1)
	}
}

func (o *hookObserver) WebhookRefused(string, error) { o.refused.Add(1) }

// aClock is a clock that tests move.
type aClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *aClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *aClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newClock() *aClock { return &aClock{now: time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)} }

func TestWebhookBreaker(t *testing.T) {
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
	clock, seen := newClock(), &hookObserver{}
	set, err := hooked(t, rules.Config{Now: clock.Now, Observe: seen}, s.URL, allowLoopback)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(n int) {
		for range n {
			_, _ = evaluate(t, set, nil)
		}
	}
	expect := func(when string, asked, refused int32) {
		t.Helper()
		if a, r := seen.asked.Swap(0), seen.refused.Swap(0); a != asked || r != refused {
			t.Errorf("%s: asked %d and refused %d times, want %d and %d", when, a, r, asked, refused)
		}
	}
	ask(20)
	expect("five failures open it", 5, 15)
	clock.add(time.Second)
	ask(3)
	expect("after a second one question goes out, and fails", 1, 2)
	clock.add(time.Second)
	ask(3)
	expect("after another second it is still open", 0, 3)
	clock.add(time.Second)
	works.Store(true)
	ask(3)
	expect("an answer closes it", 3, 0)
	works.Store(false)
	ask(4)
	expect("four failures do not open it", 4, 0)
	works.Store(true)
	ask(1)
	works.Store(false)
	ask(4)
	expect("an answer in between counts", 5, 0)
}

func TestWebhookCache(t *testing.T) {
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
	clock, seen := newClock(), &hookObserver{}
	set, err := hooked(t, rules.Config{Now: clock.Now, Observe: seen}, s.URL, allowLoopback, "cache: 30s")
	if err != nil {
		t.Fatal(err)
	}
	expect := func(what string, want int32, change func(*policy.Input)) {
		t.Helper()
		d, err := evaluate(t, set, change)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := seen.asked.Swap(0); got != want {
			t.Errorf("%s: asked %d times, want %d", what, got, want)
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
	if d, _ := evaluate(t, set, nil); d.Caveats[0] != "a b" || d.Labels["x"] != "y" {
		t.Errorf("a caller changed what is kept: %+v", d)
	}
	expect("later, at another epoch", 0, func(in *policy.Input) {
		in.Session.Epoch++
		in.Now = in.Now.Add(time.Second)
		in.Session.LastUsed = in.Now
	})
	expect("from elsewhere", 1, func(in *policy.Input) { in.Request.IP = "192.0.2.2" })
	expect("with another client", 1, func(in *policy.Input) { in.Request.Client = "other" })
	expect("with a label", 1, func(in *policy.Input) { in.Session.Labels["x"] = "y" })
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
	if _, err := evaluate(t, set, nil); err == nil {
		t.Error("an answer that cannot be read was taken")
	}
	body.Store(`{"effect":"deny"}`)
	expect("after an error", 2, nil) // one is the failed question above
}

func TestWebhookConcurrency(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}, 10), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-release
		w.WriteHeader(http.StatusNoContent)
	}))
	defer s.Close()
	seen := &hookObserver{}
	set, err := hooked(t, rules.Config{Observe: seen}, s.URL, allowLoopback, "max_concurrent: 2")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := evaluate(t, set, nil); err != nil {
				t.Error(err)
			}
		})
	}
	<-entered
	<-entered
	// Both places are taken; a third caller waits no longer than its own deadline.
	// It has a second to begin waiting.
	ctx, cancel := contextWithTimeout(t, time.Second)
	defer cancel()
	in := policy.SampleInput()
	in.Policy = "p"
	if d, err := set.Evaluate(ctx, in); !errors.Is(err, webhook.ErrNoAnswer) || !strings.Contains(err.Error(), "2 questions are waiting already") {
		t.Errorf("got %+v, %v", d, err)
	}
	if len(entered) != 0 || seen.refused.Load() != 1 {
		t.Error("a third question went out")
	}
	close(release)
	wg.Wait()
}

func TestWebhookTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // one of its clients will not trust it
	s.StartTLS()
	defer s.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	write(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	set, err := hooked(t, rules.Config{}, s.URL, allowLoopback, "ca_file: "+ca)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := evaluate(t, set, nil); err != nil || d.Rule != "p/next" {
		t.Errorf("with its certificate: %+v, %v", d, err)
	}
	set, err = hooked(t, rules.Config{}, s.URL, allowLoopback)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := evaluate(t, set, nil); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without its certificate: %+v, %v", d, err)
	}
}

// TestWebhookInside asks a webhook whose name points at this machine.
func TestWebhookInside(t *testing.T) {
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
		{"https://2130706433:" + port, ""}, // 127.0.0.1 as a number, for resolvers that read it
		{plain.URL, "allow: [10.0.0.0/8]"},
	} {
		set, err := hooked(t, rules.Config{}, "'"+test.url+"'", test.allow)
		if err != nil {
			t.Fatal(err)
		}
		d, err := evaluate(t, set, nil)
		if !errors.Is(err, webhook.ErrNoAnswer) || d.Effect != "" {
			t.Errorf("%s: %+v, %v", test.url, d, err)
		}
		if !strings.Contains(test.url, "2130706433") && !errors.Is(err, webhook.ErrAddress) {
			t.Errorf("%s: %v, want ErrAddress", test.url, err)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("a server inside was asked %d times", n)
	}
}

// TestWebhookProxy makes sure that a proxy from the environment, which would
// resolve names itself, is not used.
func TestWebhookProxy(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the proxy was asked") }))
	defer proxy.Close()
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"} {
		t.Setenv(name, proxy.URL)
	}
	set, err := hooked(t, rules.Config{}, "http://127.53.9.1:1/", "allow: [127.53.9.1]")
	if err != nil {
		t.Fatal(err)
	}
	if d, err := evaluate(t, set, nil); !errors.Is(err, webhook.ErrNoAnswer) {
		t.Errorf("got %+v, %v", d, err)
	}
}

func TestWebhookFiles(t *testing.T) {
	t.Parallel()
	short := filepath.Join(t.TempDir(), "short")
	write(t, short, "too short\n")
	long := filepath.Join(t.TempDir(), "long")
	write(t, long, strings.Repeat("x", 5000))
	const url = "https://risk.example.org/"
	for _, test := range []struct{ url, option, want string }{
		{"risk.example.org", "", ":4:10: url: want a complete address such as https://risk.example.org/decide"},
		{"ftp://risk.example.org/", "", ":4:10: url: want http or https, got ftp"},
		{"unix:///run/x.sock", "", ":4:10: url: want a complete address such as https://risk.example.org/decide"},
		{"https://me:secret@risk.example.org/", "", "url: has a user name or password; questions are signed instead"},
		{"https://risk.example.org/#x", "", "url: has a fragment, which is never sent"},
		{"http://risk.example.org/", "", "url: http needs a list allow of the networks the webhook may be in"},
		{url, "secret_file: other", ":6:5: webhooks.risk: key \"secret_file\" is a duplicate; the first is in line 5"},
		{url, "ca_file: not-there", ":6:14: read certificates: open"},
		{url, "ca_file: key", "has no certificate"},
		{url, "timeout: 10s", ":6:14: timeout: want 1ms to 5s, got 10s"},
		{url, "timeout: fast", `timeout: want a duration such as 90s, 5m, 12h or 30d, got "fast"`},
		{url, "cache: 2d", "cache: want 1s to 1h0m0s, got 48h0m0s"},
		{url, "on_error: allow", ":6:15: on_error: want unavailable or deny, got \"allow\""},
		{url, "allow: [10.0.0.1/8]", "write 10.0.0.0/8"},
		{url, "max_concurrent: 0", "max_concurrent: want 1 to 10000, got 0"},
		{url, "retries: 3", "key \"retries\" is unknown"},
	} {
		_, err := hooked(t, rules.Config{}, test.url, test.option)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %s: %v, want %s", test.url, test.option, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), hookKey) {
			t.Error("an error shows the key")
		}
	}
	for name, want := range map[string]string{short: "the key has 9 bytes, and needs 32", long: "the key has more than", "not-there": "no such file", "": "webhooks.risk: key \"secret_file\" is missing; it holds the key that signs questions"} {
		file := filepath.Join(t.TempDir(), "p.yaml")
		line := "secret_file: " + name
		if name == "" {
			line = "timeout: 1s"
		}
		write(t, file, "version: 1\nwebhooks: {risk: {url: 'https://x.org/', "+line+"}}\npolicies: {p: {otherwise: {webhook: risk}}}\n")
		if _, err := rules.Load(rules.Config{Files: []string{file}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("key %q: %v, want %s", name, err, want)
		}
	}
}

// TestWebhookWithoutOpinionAtTheEnd makes sure that nobody's opinion is no
// approval.
func TestWebhookWithoutOpinionAtTheEnd(t *testing.T) {
	t.Parallel()
	set := mustLoad(t, `version: 1
webhooks: {risk: {url: "https://x.org/", secret_file: k}}
policies:
  p:
    otherwise: {webhook: risk}
    tests:
      - {name: no opinion, webhooks: {risk: no_opinion}, expect: {error: "has no opinion, and no rule is left"}}
      - {name: not mentioned, expect: undecided}
      - {name: down, webhooks: {risk: unavailable}, expect: undecided}
      - {name: answers, webhooks: {risk: {effect: allow, ttl: 3h, caveats: [a b], labels: {x: "y"}}}, expect: {effect: allow, ttl: 1h, caveats: [a b], labels: {x: "y"}, rule: otherwise}}
`)
	if n := len(check.Tests(set).Results); n != 4 {
		t.Errorf("%d tests", n)
	}
}

// TestWebhookCountsSessions counts the sessions for a webhook that asks for
// them in its file, and for no other.
func TestWebhookCountsSessions(t *testing.T) {
	t.Parallel()
	for option, want := range map[string]int{"count_sessions: false": -1, "count_sessions: true": 5} {
		t.Run(option, func(t *testing.T) {
			t.Parallel()
			got := make(chan int, 1)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var q struct{ Input policy.Input }
				if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
					t.Error(err)
				}
				got <- q.Input.User.Sessions
				w.WriteHeader(http.StatusNoContent)
			}))
			t.Cleanup(s.Close)
			set, err := hooked(t, rules.Config{}, s.URL, allowLoopback, option)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := evaluate(t, set, func(in *policy.Input) { in.User.Sessions, in.Counter = -1, &counter{} }); err != nil {
				t.Fatal(err)
			}
			if n := <-got; n != want {
				t.Errorf("the question has %d sessions, want %d", n, want)
			}
		})
	}
}
