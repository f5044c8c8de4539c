package rules_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/check"
	"github.com/discharger/discharger/policy/rules"
)

const hookKey = "0123456789abcdef0123456789abcdef"

// hooked loads a policy whose first rule calls a webhook at url. options are
// further lines of the webhook. Without a timeout among them it is a minute.
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

// TestWebhookRule narrows the decision of a webhook, and goes on to the next rule where
// the webhook has no opinion.
func TestWebhookRule(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		status     int
		body, want string
	}{
		{"allow", 200, `{"effect":"allow","ttl":"9h","rule":"mine","hash":"mine"}`, "allow p/ask 1h0m0s"},
		{"deny", 200, `{"effect":"deny","code":"risk_high","message":"No."}`, "deny p/ask 0s"},
		{"revoke", 200, `{"effect":"revoke"}`, "revoke p/ask 0s"},
		{"no opinion", 204, "", "deny p/next 0s"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			set, err := hooked(t, rules.Config{}, answering(t, test.status, "application/json", test.body).URL, allowLoopback)
			if err != nil {
				t.Fatal(err)
			}
			d, err := evaluate(t, set, nil)
			if got := fmt.Sprint(d.Effect, " ", d.Rule, " ", d.TTL); err != nil || got != test.want || d.Hash != set.Hash() {
				t.Errorf("got %s, %v, want %s", got, err, test.want)
			}
		})
	}
}

// TestWebhookAuthorities calls a webhook whose certificate is in ca_file.
func TestWebhookAuthorities(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer s.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	write(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	set, err := hooked(t, rules.Config{}, s.URL, allowLoopback, "ca_file: "+ca)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := evaluate(t, set, nil); err != nil || d.Rule != "p/next" {
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
		{"risk.example.org", "", ":4:10: url: want an absolute URL such as https://risk.example.org/decide"},
		{"ftp://risk.example.org/", "", ":4:10: url: want http or https, got ftp"},
		{"unix:///run/x.sock", "", ":4:10: url: want an absolute URL such as https://risk.example.org/decide"},
		{"https://me:secret@risk.example.org/", "", "url: user name and password are not supported; requests are signed"},
		{"https://risk.example.org/#x", "", "url: fragment is not supported"},
		{"http://risk.example.org/", "", "url: http requires networks under allow"},
		{url, "secret_file: other", ":6:5: webhooks.risk: key \"secret_file\" is a duplicate; the first is in line 5"},
		{url, "ca_file: not-there", ":6:14: read certificates: open"},
		{url, "ca_file: key", "contains no certificate"},
		{url, "timeout: 10s", ":6:14: timeout: want 1ms to 5s, got 10s"},
		{url, "timeout: fast", `timeout: want a duration such as 90s, 5m, 12h or 30d, got "fast"`},
		{url, "cache: 2d", "cache: want 1s to 1h0m0s, got 48h0m0s"},
		{url, "on_error: allow", ":6:15: on_error: want unavailable or deny, got \"allow\""},
		{url, "allow: [10.0.0.1/8]", "write 10.0.0.0/8"},
		{url, "max_concurrent: 0", "max_concurrent: want 1 to 10000, got 0"},
		{url, "retries: 3", "key \"retries\" is unknown"},
	} {
		t.Run(test.url+" "+test.option, func(t *testing.T) {
			_, err := hooked(t, rules.Config{}, test.url, test.option)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %s", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), hookKey) {
				t.Error("the error contains the key")
			}
		})
	}
	for name, want := range map[string]string{short: "key has 9 bytes, want at least 32", long: "key has more than", "not-there": "no such file", "": "webhooks.risk: key \"secret_file\" is missing; it contains the key that signs requests"} {
		t.Run("key/"+want, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "p.yaml")
			line := "secret_file: " + name
			if name == "" {
				line = "timeout: 1s"
			}
			write(t, file, "version: 1\nwebhooks: {risk: {url: 'https://x.org/', "+line+"}}\npolicies: {p: {otherwise: {webhook: risk}}}\n")
			if _, err := rules.Load(rules.Config{Files: []string{file}}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %s", err, want)
			}
		})
	}
}

// TestWebhookWithoutOpinionAtTheEnd leaves a request undecided if the last webhook has
// no opinion.
func TestWebhookWithoutOpinionAtTheEnd(t *testing.T) {
	t.Parallel()
	set := mustLoad(t, `version: 1
webhooks: {risk: {url: "https://x.org/", secret_file: k}}
policies:
  p:
    otherwise: {webhook: risk}
    tests:
      - {name: no opinion, webhooks: {risk: no_opinion}, expect: {error: "has no opinion, and there is no next rule"}}
      - {name: not mentioned, expect: undecided}
      - {name: down, webhooks: {risk: unavailable}, expect: undecided}
      - {name: answers, webhooks: {risk: {effect: allow, ttl: 3h, caveats: [a b], labels: {x: "y"}}}, expect: {effect: allow, ttl: 1h, caveats: [a b], labels: {x: "y"}, rule: otherwise}}
`)
	if n := len(check.Tests(set).Results); n != 4 {
		t.Errorf("%d tests", n)
	}
}

// TestWebhookCountsSessions counts sessions for a webhook with count_sessions only.
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
				t.Errorf("the request has %d sessions, want %d", n, want)
			}
		})
	}
}
