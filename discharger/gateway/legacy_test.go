package gateway

import (
	"crypto/sha256"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
)

// foreign adds a legacy token to the homeserver.
func (w *world) foreign(user string) string {
	var token string
	w.hs.set(func(s *stub) {
		token = s.make(user, "OLD")
		s.tokens["old-"+user] = s.tokens[token]
	})
	return "old-" + user
}

func TestLegacy(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, c := range []struct {
		name   string
		legacy Legacy
		want   int
	}{
		{"forward", Legacy{}, 200},
		{"upgrade", Legacy{Until: now.Add(time.Hour)}, 200},
		{"upgrade, over", Legacy{Until: now.Add(-time.Hour)}, 401},
		{"reject", Legacy{Reject: true}, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(w *world) {
				w.cfg.Legacy = c.legacy
				w.cfg.ForeignTokens = [][sha256.Size]byte{sha256.Sum256([]byte("as_bridge"))}
			})
			old := w.foreign("@u:hs")
			before := w.hs.count()
			a := w.do("GET", upstream.PathWhoami, old, nil)
			if a.status != c.want || c.want == 401 && (!a.soft() || a.text("errcode") != matrix.CodeUnknownToken || w.hs.count() > before) {
				t.Errorf("%d %s", a.status, a.raw)
			}
			a = w.refresh("syr_old")
			if a.status != c.want || c.want == 401 && !a.soft() {
				t.Errorf("refresh: %d %s", a.status, a.raw)
			}
			if c.want == 200 && a.text("access_token") != "syt_fresh" {
				t.Errorf("refresh: %s", a.raw)
			}
			upgrade := anyMap{"user": "@u:hs", "guest_access_token": old}
			if a := w.do("POST", "/_matrix/client/v3/register", "", upgrade); a.status != c.want || c.want == 401 && !a.soft() {
				t.Errorf("registration of a guest: %d %s", a.status, a.raw)
			}
			form, err := http.NewRequest("POST", w.http.URL+"/_matrix/client/v3/join/x", strings.NewReader("a=b&access%5ftoken="+old))
			testkit.NoError(t, err)
			form.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
			if a := w.send(form); a.status != 200 && c.legacy == (Legacy{}) || a.status != 401 && c.legacy != (Legacy{}) {
				t.Errorf("in a form: %d %s", a.status, a.raw)
			}
			if a := w.do("GET", upstream.PathWhoami+"?user_id=%40ghost%3Ahs", "as_bridge", nil); a.status != 200 || a.text("user_id") != "@ghost:hs" {
				t.Errorf("application service: %d %s", a.status, a.raw)
			}
			if a := w.do("POST", pathLogin, old, anyMap{"user": "@u:hs"}); a.status != 200 {
				t.Errorf("login: %s", a.raw)
			}
		})
	}
}

// RejectAfterUpgrade refuses the legacy tokens of users of the gateway, and no others.
func TestRejectAfterUpgrade(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.cfg.Legacy.RejectAfterUpgrade = true })
	old, other := w.foreign("@u:hs"), w.foreign("@v:hs")
	w.want(w.do("GET", upstream.PathWhoami, old, nil), 200, "")
	in := w.login(false)
	if a := w.want(w.do("GET", upstream.PathWhoami, old, nil), 401, matrix.CodeUnknownToken); !a.soft() {
		t.Errorf("%s", a.raw)
	}
	w.want(w.do("POST", "/_matrix/client/v3/register", "", anyMap{"user": "@u:hs", "guest_access_token": old}), 401, matrix.CodeUnknownToken)
	w.want(w.do("GET", upstream.PathWhoami, other, nil), 200, "")
	w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 200, "")
	w.want(w.do("GET", upstream.PathWhoami, "nonsense", nil), 401, matrix.CodeUnknownToken)
	w.hs.leave()
	w.want(w.do("GET", upstream.PathWhoami, "nonsense2", nil), 503, matrix.CodeUnknown)
}
