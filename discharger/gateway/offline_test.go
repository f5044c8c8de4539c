package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/policy"
)

// During an outage of the service, unexpired tokens work and refreshes get 503 as
// text/plain; after it, every session continues.
func TestServiceDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	held, rotate := w.login(false).text("access_token"), w.login(true)
	w.want(w.do("GET", upstream.PathWhoami, held, nil), 200, "")
	w.down.Store(true)
	for range 3 {
		w.want(w.do("GET", upstream.PathWhoami, held, nil), 200, "")
		w.want(w.do("GET", upstream.PathWhoami, rotate.text("access_token"), nil), 200, "")
		w.forward(testTTL / 4)
	}
	a := w.refresh(rotate.text("refresh_token"))
	if a.status != 503 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") || a.header.Get("Retry-After") == "" ||
		a.header.Get("Access-Control-Allow-Origin") != "*" || a.body != nil {
		t.Fatalf("refresh: %d %v %s", a.status, a.header, a.raw)
	}
	w.forward(testTTL)
	if a := w.want(w.do("GET", upstream.PathWhoami, held, nil), 503, matrix.CodeUnknown); a.header.Get("Retry-After") == "" {
		t.Errorf("%v", a.header)
	}
	w.want(w.do("GET", upstream.PathWhoami, rotate.text("access_token"), nil), 503, matrix.CodeUnknown)
	w.down.Store(false)
	w.forward(time.Minute)
	// The client is about to refresh it, and a 401 would end the session for good.
	w.want(w.do("GET", upstream.PathWhoami, rotate.text("access_token"), nil), 503, matrix.CodeUnknown)
	w.forward(service.RefreshGrace)
	if a := w.want(w.do("GET", upstream.PathWhoami, rotate.text("access_token"), nil), 401, matrix.CodeUnknownToken); !a.soft() {
		t.Errorf("%s", a.raw)
	}
	w.want(w.do("GET", upstream.PathWhoami, held, nil), 200, "")
	a = w.want(w.refresh(rotate.text("refresh_token")), 200, "")
	w.want(w.do("GET", upstream.PathWhoami, a.text("access_token"), nil), 200, "")
}

// A wrong API key ends no session.
func TestServiceRefusesGateway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	held, rotate := w.login(false).text("access_token"), w.login(true).text("refresh_token")
	w.http.Close()
	testkit.NoError(t, w.gateway.Close())
	w.cfg.APIKey, w.cfg.Registerer = []byte("wrong"), nil
	w.startGateway()
	w.forward(testTTL)
	w.want(w.do("GET", upstream.PathWhoami, held, nil), 503, matrix.CodeUnknown)
	if a := w.refresh(rotate); a.status != 503 || a.body != nil {
		t.Errorf("%d %s", a.status, a.raw)
	}
}

// A session is discharged once per lifetime, ahead of expiry, for any number of
// requests.
func TestOneFetchPerLifetime(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		text := w.login(false).text("access_token")
		narrow, err := token.Attenuate(text, "client-ip 127.0.0.1")
		testkit.NoError(t, err)
		start := w.asked.Load()
		const lifetimes, steps = 4, 10
		for range lifetimes * steps {
			var all sync.WaitGroup
			for i := range 16 {
				all.Go(func() {
					use := []string{text, narrow}[i%2]
					if a := w.do("GET", upstream.PathWhoami, use, nil); a.status != 200 {
						t.Errorf("%d %s", a.status, a.raw)
					}
				})
			}
			all.Wait()
			w.forward(testTTL / steps)
		}
		synctest.Wait()
		// Steps are a tenth: the first fetch comes after seven, the others after nine.
		if n := w.asked.Load() - start; n < lifetimes || n > lifetimes+1 {
			t.Errorf("%d fetches in %d lifetimes", n, lifetimes)
		}
		w.forward(2 * testTTL)
		start = w.asked.Load()
		var all sync.WaitGroup
		for range 64 {
			all.Go(func() {
				if a := w.do("GET", upstream.PathWhoami, text, nil); a.status != 200 {
					t.Errorf("%d %s", a.status, a.raw)
				}
			})
		}
		all.Wait()
		if n := w.asked.Load() - start; n != 1 {
			t.Errorf("%d fetches for concurrent requests", n)
		}
	}, func(w *world) { w.cfg.jitter = func() float64 { return 0.5 } })
}

// Two tabs and a repeated request get the same next token, and each can continue with
// it.
func TestParallelRefresh(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.login(true)
	for range 3 {
		results := make([]answer, 8)
		var all sync.WaitGroup
		for i := range results {
			all.Go(func() { results[i] = w.refresh(in.text("refresh_token")) })
		}
		all.Wait()
		for _, a := range results {
			w.want(a, 200, "")
			if a.text("refresh_token") != results[0].text("refresh_token") {
				t.Fatal("different next tokens")
			}
			w.want(w.do("GET", upstream.PathWhoami, a.text("access_token"), nil), 200, "")
		}
		in = results[7]
		w.forward(time.Minute)
	}
}

// A policy receives the client's address.
func TestPolicyReceivesClient(t *testing.T) {
	t.Parallel()
	how := make(chan string, 1)
	w := newWorld(t, func(w *world) {
		w.policy = func(in *policy.Input) policy.Decision {
			how <- in.Session.Labels["login"]
			return policy.Decision{Effect: policy.EffectAllow}
		}
	})
	req, err := http.NewRequest("POST", w.http.URL+pathLogin, strings.NewReader(`{"type":"m.login.password","user":"@u:hs"}`))
	testkit.NoError(t, err)
	req.Header.Set("User-Agent", "Element/1.2")
	w.want(w.send(req), 200, "")
	list, err := w.gateway.client.Sessions(t.Context(), "@u:hs")
	testkit.NoError(t, err)
	if len(list) != 1 || list[0].FirstIP.String() != "127.0.0.1" || list[0].FirstClient != "Element" || <-how != "m.login.password" || list[0].Device != "DEV1" {
		t.Errorf("%+v", list)
	}
}

// Logs, metrics and responses contain no homeserver's token, and no gateway token in
// the wrong place.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var ours []string
	for _, refresh := range []bool{false, true} {
		in := w.login(refresh)
		ours = append(ours, in.text("access_token"))
		w.do("GET", upstream.PathWhoami, in.text("access_token"), nil)
		w.do("GET", "/_matrix/client/v3/x?access_token="+in.text("access_token"), "", nil)
		w.do("GET", "/_matrix/client/v3/x?access_token=foreign-canary-token", "", nil)
		if refresh {
			ours = append(ours, in.text("refresh_token"))
			w.refresh(in.text("refresh_token"))
		}
		w.do("POST", "/_matrix/client/v3/logout", in.text("access_token"), anyMap{})
		w.do("GET", upstream.PathWhoami, in.text("access_token"), nil)
	}
	w.down.Store(true)
	w.do("POST", pathLogin, "", anyMap{})
	w.hs.leave()
	w.do("POST", pathLogin, "", anyMap{})
	rec := newRecorded()
	promhttp.HandlerFor(w.reg, promhttp.HandlerOpts{}).ServeHTTP(rec, mustRequest(t))
	printed := fmt.Sprintf("%v %+v %#v %s", w.gateway, w.gateway, w.gateway, w.gateway)
	for what, text := range map[string]string{"the log": w.log.String(), "the metrics": rec.b.String(), "print": printed} {
		w.noCanary(what, text)
		for _, token := range append(ours, "foreign-canary-token") {
			if strings.Contains(text, token) {
				t.Errorf("token in %s", what)
			}
		}
		if text == "" {
			t.Errorf("%s is empty", what)
		}
	}
	if !strings.Contains(rec.b.String(), `discharger_gateway_requests_total{outcome="forwarded",token="held"}`) {
		t.Errorf("metrics:\n%s", rec.b.String())
	}
}

// recorded is a recorded response.
type recorded struct {
	h http.Header
	b strings.Builder
}

func newRecorded() *recorded                             { return &recorded{h: make(http.Header)} }
func (r *recorded) Header() http.Header                  { return r.h }
func (r *recorded) WriteHeader(int)                      {}
func (r *recorded) Write(b []byte) (int, error)          { return r.b.Write(b) }
func (r *recorded) ReadFrom(in io.Reader) (int64, error) { return io.Copy(&r.b, in) }

func mustRequest(t testing.TB) *http.Request {
	req, err := http.NewRequest("GET", "/metrics", nil)
	testkit.NoError(t, err)
	return req
}
