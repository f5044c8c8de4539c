package matrix

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
)

// The bounds of an outage, for each client and for the gateway.
const (
	mostUndecided = 50        // answers of 503
	mostLog       = 100 << 10 // bytes
)

// outageVariable is the environment variable with the length of the outage.
// Discharges last four ninths of it.
const outageVariable = "DISCHARGER_TEST_OUTAGE"

func outageLength(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv(outageVariable)
	if text == "" {
		return 15 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("%s is %q", outageVariable, text)
	}
	return d
}

// TestOutage stops the service for longer than discharges last, while clients sync.
// Clients receive few answers of 503, the log stays short, and all go on afterwards:
// no client is logged out.
func TestOutage(t *testing.T) {
	k := assemble(t)
	k.installClients(t)
	h := startDendrite(t, k)
	length := outageLength(t)
	a := startApart(t, k, h, length*4/9)
	clients := []*syncing{
		{name: "matrix-nio", start: (*syncing).python},
		{name: "Hydrogen", start: (*syncing).hydrogen},
		{name: "matrix-js-sdk 42, refreshing", library: "matrix-js-sdk", refresh: "sdk", start: (*syncing).jssdk},
		{name: "matrix-js-sdk 43", library: "matrix-js-sdk-43", start: (*syncing).jssdk},
		{name: "matrix-js-sdk 43, refreshing", library: "matrix-js-sdk-43", refresh: "own", start: (*syncing).jssdk},
		{name: "mautrix-go", start: (*syncing).mautrix},
		{name: "mautrix-go, refreshing", refresh: "own", start: (*syncing).mautrix},
	}
	var all sync.WaitGroup
	for _, c := range clients {
		c.begin(t, a)
		all.Go(func() {
			if err := c.start(c, t); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		})
	}
	if all.Wait(); t.Failed() {
		t.FailNow()
	}
	receive(t, clients, "before")
	logged := len(a.gateway.out.String())
	a.service.stop(t, syscall.SIGKILL)
	time.Sleep(length) // the outage
	a.startService(t)
	defer func() {
		text := a.gateway.out.String()[logged:]
		t.Logf("%d bytes of log", len(text))
		if len(text) > mostLog {
			t.Errorf("%d bytes of log, beginning with:\n%s", len(text), text[:8000])
		}
		for _, c := range clients {
			n := c.undecided.Load()
			t.Logf("%s: %d requests, %d answers of 503", c.name, c.requests.Load(), n)
			if n > mostUndecided {
				t.Errorf("%s: %d answers of 503", c.name, n)
			}
		}
	}()
	receive(t, clients, "after")
}

// receive sends a message to the room of every client, and waits until it arrives.
func receive(t *testing.T, clients []*syncing, text string) {
	t.Helper()
	for _, c := range clients {
		c.peer.call(t, "PUT", "/rooms/"+url.PathEscape(c.room)+"/send/m.room.message/"+text, body{"msgtype": "m.text", "body": text}).ok(t)
	}
	for _, c := range clients {
		if err := c.expect("message", text); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// syncing is a client that syncs, with an account of its own, through a proxy that
// counts.
type syncing struct {
	name, library, refresh string
	start                  func(*syncing, *testing.T) error

	kit                 *kit
	url                 string
	user                *user
	peer                *device // of the same user, at the homeserver itself
	room                string
	events              chan clientEvent
	requests, undecided atomic.Int64
}

// clientEvent is a line of a client's output.
type clientEvent struct {
	Event string `json:"event"` // ready, message, or over
	Body  string `json:"body"`
	Why   string `json:"why"`
}

// begin creates the account and the room of the client.
func (c *syncing) begin(t *testing.T, a *apart) {
	t.Helper()
	c.kit, c.events = a.kit, make(chan clientEvent, 1000)
	c.url = c.countingProxy(t, a.gateway.url)
	c.user = a.homeserver.register(t, strings.ToLower(randomName()))
	c.peer = c.user.login(t, nil)
	c.room = c.peer.call(t, "POST", "/createRoom", body{"preset": "private_chat"}).ok(t).body.text("room_id")
}

// countingProxy starts a proxy to a gateway and returns its address.
func (c *syncing) countingProxy(t *testing.T, to string) string {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) },
		ModifyResponse: func(r *http.Response) error {
			c.requests.Add(1)
			if r.StatusCode == http.StatusServiceUnavailable {
				c.undecided.Add(1)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	return server.URL
}

// expect waits for an event. The end of the session or of the sync is an error.
func (c *syncing) expect(name, text string) error {
	timeout := time.After(3 * time.Minute)
	for {
		select {
		case e := <-c.events:
			switch {
			case e.Event == "over":
				return fmt.Errorf("over, waiting for %s %s: %s", name, text, e.Why)
			case e.Event == name && e.Body == text:
				return nil
			}
		case <-timeout:
			return fmt.Errorf("waited in vain for %s %s", name, text)
		}
	}
}

// run starts a client program, until the test ends.
func (c *syncing) run(t *testing.T, name, script string) error {
	task, err := json.Marshal(body{
		"url": c.url, "user": c.user.name, "password": c.user.password, "library": c.library, "refresh": c.refresh, "room": c.room,
	})
	if err != nil {
		return err
	}
	cmd := exec.Command(name, script, string(task))
	cmd.Env = append(os.Environ(), "no_proxy=127.0.0.0/8")
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	var stderr output
	cmd.Stderr = &stderr
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var e clientEvent
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				c.events <- e
			}
		}
		_, _ = io.Copy(io.Discard, stdout)
		_ = cmd.Wait()
		c.events <- clientEvent{Event: "over", Why: "it ended: " + stderr.String()}
	}()
	t.Cleanup(func() {
		_ = stdin.Close()
		select {
		case <-done:
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			<-done
		}
	})
	return c.expect("ready", "")
}

func (c *syncing) python(t *testing.T) error {
	return c.run(t, c.kit.python, filepath.Join("testdata", "outage.py"))
}

func (c *syncing) jssdk(t *testing.T) error {
	return c.run(t, c.kit.nodePath(), filepath.Join(c.kit.dir, "outage.mjs"))
}

func (c *syncing) hydrogen(t *testing.T) error {
	return c.run(t, c.kit.nodePath(), filepath.Join(c.kit.dir, "hydrogen.mjs"))
}

// mautrix runs a client on mautrix-go, which leaves refreshing to the application.
func (c *syncing) mautrix(t *testing.T) error {
	m, err := mautrix.NewClient(c.url, "", "")
	if err != nil {
		return err
	}
	login, err := m.Login(t.Context(), &mautrix.ReqLogin{
		Type: mautrix.AuthTypePassword, Identifier: mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: c.user.name},
		Password: c.user.password, RefreshToken: c.refresh != "", StoreCredentials: true,
	})
	if err != nil {
		return err
	}
	renewed := new(renewedToken)
	m.Client = &http.Client{Transport: renewed}
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan struct{})
	syncer := m.Syncer.(*mautrix.DefaultSyncer)
	syncer.OnEventType(event.EventMessage, func(_ context.Context, e *event.Event) {
		c.events <- clientEvent{Event: "message", Body: e.Content.AsMessage().Body}
	})
	var once sync.Once
	syncer.OnSync(func(context.Context, *mautrix.RespSync, string) bool {
		once.Do(func() { close(ready) })
		return true
	})
	var running sync.WaitGroup
	running.Go(func() {
		if err := m.SyncWithContext(ctx); ctx.Err() == nil {
			c.events <- clientEvent{Event: "over", Why: err.Error()}
		}
	})
	if c.refresh != "" {
		running.Go(func() { refreshMautrix(ctx, m, login, renewed) })
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	select {
	case <-ready:
		return nil
	case e := <-c.events:
		return errors.New(e.Why)
	}
}

// refreshMautrix refreshes before the expiry, and retries until it succeeds.
func refreshMautrix(ctx context.Context, m *mautrix.Client, login *mautrix.RespLogin, renewed *renewedToken) {
	token, lasts := login.RefreshToken, time.Duration(login.ExpiresInMS)*time.Millisecond
	for pause := lasts / 2; ; pause = lasts / 2 {
		for {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			var answer struct {
				AccessToken  string `json:"access_token"`
				RefreshToken string `json:"refresh_token"`
				Expires      int64  `json:"expires_in_ms"`
			}
			_, err := m.MakeFullRequest(ctx, mautrix.FullRequest{
				Method: http.MethodPost, URL: m.BuildClientURL("v3", "refresh"), MaxAttempts: 1,
				RequestJSON: map[string]string{"refresh_token": token}, ResponseJSON: &answer,
			})
			if err == nil {
				renewed.token.Store(&answer.AccessToken)
				token, lasts = answer.RefreshToken, time.Duration(answer.Expires)*time.Millisecond
				break
			}
			pause = time.Second
		}
	}
}

// renewedToken sends requests with the latest access token: that of the client must
// not change while it syncs.
type renewedToken struct{ token atomic.Pointer[string] }

// RoundTrip implements [http.RoundTripper].
func (r *renewedToken) RoundTrip(req *http.Request) (*http.Response, error) {
	if token := r.token.Load(); token != nil {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+*token)
	}
	return http.DefaultTransport.RoundTrip(req)
}
