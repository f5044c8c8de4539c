package server_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// mintedAt seals a condition of Alice's with a time of the test's.
func (w *world) mintedAt(mode caveat.Mode, ms int64) []byte {
	w.t.Helper()
	id := caveat.NewSessionID()
	condition, err := (&caveat.Condition{Session: id, User: "@alice:a.example", Device: id.String(), Minted: ms, Mode: mode}).Encode()
	testkit.NoError(w.t, err)
	sealed, err := caveat.Seal(caveat.SealParams{
		Version: caveat.V2, Homeserver: w.keys, Discharger: w.hsConfig.Discharger, RootKey: make([]byte, 24), Condition: condition,
	})
	testkit.NoError(w.t, err)
	return sealed
}

// TestEndedOrNot: a refusal has Ended, and only with it the kind of end.
// A client deletes keys because of an end that was decided, and of nothing else.
func TestEndedOrNot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withStranger)
	now := time.Now().UnixMilli()
	rotating := b64(w.mint(caveat.ModeRotate))
	first := w.post(wire.PathDischarge, form("id64", rotating)).discharge(t).RefreshToken
	refresh := func(token string, header ...string) answer {
		return w.post(wire.PathDischarge, form("id64", rotating, "token64", token, "token-kind", "refresh"), header...)
	}
	second := refresh(first).discharge(t).RefreshToken
	third := refresh(second).discharge(t).RefreshToken
	last := refresh(third).discharge(t).RefreshToken
	narrowed, err := client.RefreshToken(last).Attenuate("client-ip 192.0.2.1")
	testkit.NoError(t, err)
	other := b64(w.mint(caveat.ModeRotate))
	gone := b64(w.mint(caveat.ModeOpen))
	w.post(wire.PathDischarge, form("id64", gone)).discharge(t)
	w.post(wire.PathLogout, form("id64", gone))
	held := b64(w.mint(caveat.ModeHeld))
	type want struct {
		reason      string
		ended, soft bool
	}
	for _, c := range []struct {
		name string
		a    answer
		want want
	}{
		{"no token", w.post(wire.PathDischarge, form("id64", rotating)), want{wire.ReasonTokenRequired, false, false}},
		{"another session's token", w.post(wire.PathDischarge, form("id64", other, "token64", last, "token-kind", "refresh")), want{wire.ReasonTokenInvalid, false, false}},
		{"a narrowing that is not met", refresh(string(narrowed)), want{wire.ReasonTokenInvalid, false, false}},
		{"superseded", refresh(first), want{wire.ReasonTokenSuperseded, false, false}},
		{"superseded, to log out", w.post(wire.PathLogout, form("id64", rotating, "token64", first, "token-kind", "refresh")), want{wire.ReasonTokenSuperseded, false, false}},
		{"held", w.post(wire.PathDischarge, form("id64", held)), want{wire.ReasonHomeserverRequired, false, false}},
		{"held, another homeserver", w.post(wire.PathDischarge, form("id64", held), "Authorization", "Bearer "+strangersKey), want{wire.ReasonHomeserverRequired, false, false}},
		// The store is younger than these.
		{"late first discharge", w.post(wire.PathDischarge, form("id64", b64(w.mintedAt(caveat.ModeOpen, now-3_600_000)))), want{wire.ReasonSessionLost, true, true}},
		{"minted in seconds", w.post(wire.PathDischarge, form("id64", b64(w.mintedAt(caveat.ModeOpen, now/1000)))), want{wire.ReasonSessionLost, true, true}},
		{"logged out", w.post(wire.PathDischarge, form("id64", gone)), want{wire.ReasonSessionEnded, true, false}},
		{"reused", refresh(first, "User-Agent", "another party"), want{wire.ReasonTokenReused, true, true}},
		{"reused, again", refresh(last), want{wire.ReasonTokenReused, true, true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := c.a.error(t)
			if c.a.status != http.StatusUnauthorized || e.Code != wire.CodePermissionDenied || e.Info == nil {
				t.Fatalf("%d %s", c.a.status, c.a.body)
			}
			got := want{reason: e.Info.Reason, ended: e.Info.Ended, soft: e.Info.SoftLogout != nil && *e.Info.SoftLogout}
			if got != c.want || (e.Info.SoftLogout != nil) != e.Info.Ended || strings.Contains(string(c.a.body), "SoftLogout") != e.Info.Ended {
				t.Errorf("%s", c.a.body)
			}
		})
	}
	metrics := scrape(t, w.admin.URL+wire.PathMetrics)
	for _, line := range []string{
		`discharger_requests_total{end="soft",homeserver="a.example",mode="rotate",op="discharge",reason="token_reused",result="refused"} 2`,
		`discharger_requests_total{end="hard",homeserver="a.example",mode="open",op="discharge",reason="session_ended",result="refused"} 1`,
		`discharger_requests_total{end="",homeserver="a.example",mode="rotate",op="discharge",reason="token_superseded",result="refused"} 1`,
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("metrics lack %s", line)
		}
	}
}

// TestFutureMark: a mark that a wrong clock made keeps logins undecided, which is
// counted, until an operator lifts it.
func TestFutureMark(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	future := time.Now().Add(time.Hour)
	record, err := session.GenerationRecord{Generation: 1, At: future.UnixMilli()}.MarshalBinary()
	testkit.NoError(t, err)
	done, err := w.store.Swap(ctx, store.Write{
		User:    store.UserKey{Homeserver: "a.example", User: "@alice:a.example"},
		Changes: []store.Change{{New: record, Expires: future.Add(time.Hour)}},
	})
	if err != nil || !done {
		t.Fatal(done, err)
	}
	id := b64(w.mint(caveat.ModeOpen))
	if a := w.post(wire.PathDischarge, form("id64", id)); a.status != 503 {
		t.Errorf("before: %d %s", a.status, a.body)
	}
	m, err := w.api(apiKey).Marks(ctx, "@alice:a.example")
	testkit.NoError(t, err)
	if !m.User.After(m.Now) || m.User.UnixMilli() != future.UnixMilli() {
		t.Errorf("marks %+v", m)
	}
	if n, err := w.api(apiKey).LiftMarks(ctx, "@alice:a.example"); err != nil || n != 1 {
		t.Errorf("lifted %d, %v", n, err)
	}
	if m, err = w.api(apiKey).Marks(ctx, "@alice:a.example"); err != nil || m.User.After(m.Now) || m.User.IsZero() {
		t.Errorf("marks %+v, %v", m, err)
	}
	// Its revocations stay; a later login is not affected.
	if e := w.post(wire.PathDischarge, form("id64", id)).error(t); e.Info == nil || !e.Info.Ended {
		t.Errorf("after: %+v", e)
	}
	testkit.Eventually(t, "the millisecond is over", func() bool { return time.Now().UnixMilli() > m.User.UnixMilli() })
	w.post(wire.PathDischarge, form("id64", b64(w.mint(caveat.ModeOpen)))).discharge(t)
	if metrics := scrape(t, w.admin.URL+wire.PathMetrics); !strings.Contains(metrics, "discharger_future_marks_total 1\n") {
		t.Error("the mark is not counted")
	}
	if !strings.Contains(w.log.String(), "revocation mark is in the future") {
		t.Error("the mark is not logged")
	}
}

// TestLostWrite: a token without a record, inside the activation window, shows
// that the store lost the activation, which is counted; the session goes on.
func TestLostWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.session("@alice:a.example", "PHONE", caveat.ModeRotate)
	user := store.UserKey{Homeserver: "a.example", User: "@alice:a.example"}
	list, err := w.store.List(t.Context(), user)
	testkit.NoError(t, err)
	done, err := w.store.Swap(t.Context(), store.Write{User: user, Changes: []store.Change{
		{Session: s.Minted.Session, Old: list.Sessions[s.Minted.Session]},
	}})
	if err != nil || !done {
		t.Fatal(done, err)
	}
	s.alive(t, true)
	s.alive(t, true)
	if metrics := scrape(t, w.admin.URL+wire.PathMetrics); !strings.Contains(metrics, "discharger_store_lost_writes_total 1\n") {
		t.Error("the lost write is not counted")
	}
	if err := s.Logout(t.Context(), wire.ScopeSession); err != nil {
		t.Error(err)
	}
	if _, err := s.Bundle(t.Context()); !errors.Is(err, client.ErrRefused) {
		t.Error(err)
	}
}
