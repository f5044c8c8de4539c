package gateway

import (
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
)

// A client without refresh tokens works for hours, and logs out.
func TestHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.login(false)
	text := in.text("access_token")
	if !strings.HasPrefix(text, token.PrefixHeld) || in.body["refresh_token"] != nil || in.body["expires_in_ms"] != nil {
		t.Fatalf("login: %s", in.raw)
	}
	if in.body["x.unknown"] == nil || in.text("device_id") != "DEV1" {
		t.Fatalf("members are missing: %s", in.raw)
	}
	for range 5 {
		a := w.want(w.do("GET", upstream.PathWhoami, text, nil), 200, "")
		if a.text("user_id") != "@u:hs" {
			t.Fatalf("whoami: %s", a.raw)
		}
		w.forward(4 * time.Minute)
	}
	w.want(w.do("POST", "/_matrix/client/v3/logout", text, anyMap{}), 200, "")
	if a := w.want(w.do("GET", upstream.PathWhoami, text, nil), 401, matrix.CodeUnknownToken); a.soft() {
		t.Error("logout ended softly")
	}
	w.noCanary("the log", w.log.String())
}

// A client with refresh tokens refreshes.
func TestRotate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.login(true)
	access, refresh := in.text("access_token"), in.text("refresh_token")
	if !strings.HasPrefix(access, token.PrefixRotate) || !strings.HasPrefix(refresh, token.PrefixRefresh) {
		t.Fatalf("login: %s", in.raw)
	}
	for range 3 {
		w.want(w.do("GET", upstream.PathWhoami, access, nil), 200, "")
		w.forward(testTTL)
		if a := w.want(w.do("GET", upstream.PathWhoami, access, nil), 401, matrix.CodeUnknownToken); !a.soft() {
			t.Error("expiry ended hard")
		}
		a := w.want(w.refresh(refresh), 200, "")
		if ms := a.body["expires_in_ms"].(float64); ms > float64(testTTL.Milliseconds()-4000) {
			t.Errorf("expires in %v ms", ms)
		}
		access, refresh = a.text("access_token"), a.text("refresh_token")
	}
	w.want(w.do("POST", "/_matrix/client/v3/logout", access, anyMap{}), 200, "")
	w.want(w.do("GET", upstream.PathWhoami, access, nil), 401, matrix.CodeUnknownToken)
	w.want(w.refresh(refresh), 401, matrix.CodeUnknownToken)
	w.noCanary("the log", w.log.String())
}
