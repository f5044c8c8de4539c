package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
)

// A response of another server in the service's place decides nothing: no session ends,
// and no device is logged out.
func TestImposterDecidesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		body   string
	}{
		{200, `{}`}, {200, `null`}, {200, `{"status":"maintenance"}`}, {200, `[]`}, {200, ``}, {204, ``}, {302, ``},
		{400, `{"Code":"bad request"}`}, {401, `{"errcode":"M_UNKNOWN_TOKEN"}`}, {401, `{"Code":"unauthorized"}`}, {403, `{}`},
		{404, `{"Code":"not found"}`}, {404, `{}`}, {429, `{"Code":"too many requests"}`}, {500, `{}`}, {503, `{"Code":"permission denied"}`},
	} {
		t.Run(fmt.Sprintf("%d %s", c.status, c.body), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			held, rotate := w.login(false), w.login(true)
			other := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", "application/json")
				rw.Header().Set("Location", "/")
				rw.WriteHeader(c.status)
				fmt.Fprint(rw, c.body)
			}))
			t.Cleanup(other.Close)
			w.http.Close()
			testkit.NoError(t, w.gateway.Close())
			genuine := w.cfg.ServiceURL
			w.cfg.Registerer, w.cfg.ServiceURL = nil, other.URL
			w.startGateway()
			undecided := func(a answer) {
				t.Helper()
				if a.status != 503 {
					t.Errorf("%d %s", a.status, a.raw)
				}
			}
			undecided(w.do("GET", upstream.PathWhoami, held.text("access_token"), nil))
			undecided(w.refresh(rotate.text("refresh_token")))
			undecided(w.do("POST", pathLogin, "", anyMap{"user": "@u:hs"}))
			w.forward(testTTL + time.Second)
			undecided(w.do("GET", upstream.PathWhoami, rotate.text("access_token"), nil))
			undecided(w.do("POST", upstream.PathLogout+"/all", rotate.text("access_token"), anyMap{}))
			undecided(w.do("POST", upstream.PathLogout, rotate.text("access_token"), anyMap{}))
			if err := w.gateway.outbox.Reconcile(t.Context(), 0); err == nil {
				t.Error("sessions were reconciled")
			}
			left := 1
			if a := w.do("POST", upstream.PathLogout, held.text("access_token"), anyMap{}); a.status == 200 { // the revocation is pending
				left = 0
			} else {
				undecided(a)
			}
			_ = w.gateway.outbox.Flush(t.Context())
			if n := w.hs.loggedOut(); n != 0 {
				t.Errorf("%d devices logged out", n)
			}
			w.cfg.ServiceURL = genuine
			w.restart()
			w.want(w.refresh(rotate.text("refresh_token")), 200, "")
			w.settled()
			if n := w.sessions(); n != 1+left {
				t.Errorf("%d live sessions, want %d", n, 1+left)
			}
		})
	}
}
