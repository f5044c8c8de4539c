package gateway

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
)

// loopWorld returns a world whose gateway has itself as upstream, directly or behind a
// proxy.
func loopWorld(t *testing.T, behind func(target *url.URL) http.Handler) *world {
	w := newWorld(t)
	testkit.NoError(t, w.gateway.Close())
	front := httptest.NewUnstartedServer(nil)
	t.Cleanup(front.Close)
	self, err := url.Parse("http://" + front.Listener.Addr().String())
	testkit.NoError(t, err)
	w.cfg.Upstream, w.cfg.Registerer = self.String(), nil
	if behind != nil {
		proxy := httptest.NewServer(behind(self))
		t.Cleanup(proxy.Close)
		w.cfg.Upstream = proxy.URL
	}
	g, err := New(w.cfg)
	testkit.NoError(t, err)
	t.Cleanup(func() { _ = g.Close() })
	front.Config.Handler = g
	front.Start()
	w.gateway, w.http = g, front
	return w
}

// A request that comes back to the gateway is refused and logged as an error that names
// the setting. CheckUpstream reports it.
func TestLoop(t *testing.T) {
	t.Parallel()
	for name, behind := range map[string]func(*url.URL) http.Handler{
		"directly": nil,
		"proxy": func(target *url.URL) http.Handler {
			return httputil.NewSingleHostReverseProxy(target)
		},
		"proxy that adds its own name": func(target *url.URL) http.Handler {
			return &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
				p.SetURL(target)
				p.Out.Header.Set("Cdn-Loop", "other, "+p.Out.Header.Get("Cdn-Loop")+"; v=1,cdn.example")
			}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := loopWorld(t, behind)
			if err := w.gateway.CheckUpstream(t.Context()); !errors.Is(err, upstream.ErrLoop) {
				t.Errorf("CheckUpstream: %v", err)
			}
			for _, method := range []string{"GET", "POST"} {
				if a := w.do(method, "/_matrix/client/v3/rooms/!a:b/messages", "", nil); a.status != http.StatusLoopDetected || a.text("errcode") != "M_UNKNOWN" {
					t.Errorf("%s: %d, %s", method, a.status, a.raw)
				}
			}
			if h := w.gateway.Health(t.Context()); !errors.Is(h.Homeserver, upstream.ErrLoop) || h.Ready() {
				t.Errorf("health of the homeserver: %v", h.Homeserver)
			}
			if log := w.log.String(); !strings.Contains(log, `"level":"ERROR","msg":"request came back, upstream leads to this gateway","upstream":"`+w.cfg.Upstream) {
				t.Errorf("log:\n%s", log)
			}
		})
	}
}

// A homeserver that answers, is unreachable, or follows other proxies is no loop.
func TestNoLoop(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.gateway.CheckUpstream(t.Context()); err != nil {
		t.Errorf("CheckUpstream: %v", err)
	}
	r := w.request("GET", "/_matrix/client/versions", "", nil)
	r.Header.Set("Cdn-Loop", "discharger-0011223344556677, cdn.example")
	if a := w.send(r); a.status != http.StatusOK {
		t.Errorf("through other proxies: %d", a.status)
	}
	if got := w.hs.last(t).Header.Values("Cdn-Loop"); len(got) != 2 || !w.gateway.homeserver.Looped(http.Header{"Cdn-Loop": got[1:]}) {
		t.Errorf("homeserver received %q", got)
	}
	w.hs.leave()
	if err := w.gateway.CheckUpstream(t.Context()); err != nil {
		t.Errorf("CheckUpstream without a homeserver: %v", err)
	}
}
