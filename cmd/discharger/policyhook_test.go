package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/policy"
)

const hookSecret = "0123456789abcdef0123456789abcdef"

// hookRules returns rules that call a webhook for every request, with settings beside
// its secret.
func hookRules(settings ...string) string {
	return "version: 1\nwebhooks:\n  risk:\n    secret_file: risk.key\n    " + strings.Join(settings, "\n    ") + `
policies:
  default:
    rules:
      - {name: ask-risk, when: "true", then: {webhook: risk}}
    otherwise: allow
`
}

func newHooked(t *testing.T, settings ...string) *ruled {
	t.Helper()
	return newRuled(t, hookRules(settings...), "", map[string]string{"risk.key": hookSecret + "\n"})
}

const (
	hookAllow    = "allow: [127.0.0.0/8]"
	hookPatience = "timeout: 5s" // the most there is
)

// TestWebhookDecides checks the decision of a webhook that verifies its requests.
func TestWebhookDecides(t *testing.T) {
	t.Parallel()
	var wrong atomic.Value
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		in, err := verifyQuestion(req)
		if err != nil {
			wrong.Store(err)
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if in.Request.IP != "203.0.113.7" {
			fmt.Fprint(w, `{"effect":"deny","code":"risky","message":"Not from there."}`)
			return
		}
		fmt.Fprint(w, `{"effect":"allow","ttl":"90s"}`)
	}))
	defer hook.Close()
	r := newHooked(t, "url: "+hook.URL+"/decide", hookAllow, hookPatience)
	v := r.login(caveat.ModeRotate, "", nil)
	v.granted(90 * time.Second)
	v.granted(90 * time.Second)
	v.at("198.51.100.66").refused("risky")
	v.granted(90 * time.Second)
	if err := wrong.Load(); err != nil {
		t.Errorf("the webhook could not verify a question: %v", err)
	}
	if n := r.metric(`discharger_policy_webhook_seconds_count{result="ok",webhook="risk"}`); n != 4 {
		t.Errorf("%v answers are counted, want 4", n)
	}
}

// verifyQuestion checks the signature of a question as a receiver does.
func verifyQuestion(req *http.Request) (*policy.Input, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	var at int64
	var signature string
	header := req.Header.Get("Discharger-Signature")
	if _, err := fmt.Sscanf(strings.Replace(header, ",v1=", " ", 1), "t=%d %s", &at, &signature); err != nil {
		return nil, fmt.Errorf("header %q: %w", header, err)
	}
	if off := time.Since(time.Unix(at, 0)); off < -time.Minute || off > time.Minute {
		return nil, fmt.Errorf("it is %v old", off)
	}
	mac := hmac.New(sha256.New, []byte(hookSecret))
	fmt.Fprintf(mac, "%d.%s", at, body)
	if got, err := hex.DecodeString(signature); err != nil || !hmac.Equal(got, mac.Sum(nil)) {
		return nil, fmt.Errorf("the signature %s is wrong", signature)
	}
	var question struct{ Input *policy.Input }
	if err := json.Unmarshal(body, &question); err != nil || question.Input == nil {
		return nil, fmt.Errorf("body %q: %w", body, err)
	}
	return question.Input, nil
}

// A webhook that gives no answer leaves the session as it was: 503 and never
// 401. A redirect is not followed, and a forbidden address gets no connection.
func TestWebhookTrouble(t *testing.T) {
	t.Parallel()
	var followed atomic.Int64
	hang := make(chan struct{})
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/hang":
			select {
			case <-hang:
			case <-req.Context().Done():
			}
		case "/redirect":
			http.Redirect(w, req, "/elsewhere", http.StatusTemporaryRedirect)
		case "/unauthorized":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			followed.Add(1)
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"effect":"allow"}`)
		}
	}))
	defer hook.Close()
	defer close(hang)
	for name, settings := range map[string][]string{
		"hangs":     {"url: " + hook.URL + "/hang", hookAllow, "timeout: 100ms"},
		"redirects": {"url: " + hook.URL + "/redirect", hookAllow},
		"refuses":   {"url: " + hook.URL + "/unauthorized", hookAllow},
	} {
		t.Run(name, func(t *testing.T) {
			r := newHooked(t, settings...)
			v := r.login(caveat.ModeRotate, "", nil)
			v.undecided()
			r.write("policy.yaml", withTTL(600))
			r.hangup()
			r.waitFor("msg=reloaded")
			v.granted(10 * time.Minute)
			v.granted(10 * time.Minute)
		})
	}
	if n := followed.Load(); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

// TestWebhookAddress checks that loopback and private addresses need the setting of the
// rule file.
func TestWebhookAddress(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var connected atomic.Int64
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			connected.Add(1)
			conn.Close()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for name, settings := range map[string][]string{
		"address":         {"url: https://127.0.0.1:" + port, hookPatience},
		"name":            {"url: https://localhost:" + port, hookPatience},
		"another network": {"url: https://127.0.0.1:" + port, "allow: [10.0.0.0/8]", hookPatience},
	} {
		r := newHooked(t, settings...)
		r.login(caveat.ModeOpen, "", nil).undecided()
		if _, err := r.p.waitFor(`address is not allowed`); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := connected.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}
