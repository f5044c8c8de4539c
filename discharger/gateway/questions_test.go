package gateway

import (
	"strings"
	"testing"
	"time"
)

const pathRegister = "/_matrix/client/v3/register"

// beginRegistration begins a registration, and gives the name of the questions.
func (w *world) beginRegistration(in anyMap) string {
	w.t.Helper()
	a := w.do("POST", pathRegister, "", in)
	name := a.text("session")
	if a.status != 401 || a.body["flows"] == nil || name == "" {
		w.t.Fatalf("%d %s", a.status, a.raw)
	}
	return name
}

// answered answers both questions, the last together with what is in last.
func (w *world) answered(name string, last anyMap) answer {
	w.t.Helper()
	a := w.do("POST", pathRegister, "", anyMap{"auth": anyMap{"type": "m.login.dummy", "session": name}})
	if a.status != 401 || a.text("session") != name {
		w.t.Fatalf("%d %s", a.status, a.raw)
	}
	in := anyMap{"auth": anyMap{"type": "m.login.terms", "session": name}}
	for k, v := range last {
		in[k] = v
	}
	return w.want(w.do("POST", pathRegister, "", in), 200, "")
}

// A wish for a refresh token in the first request of a registration counts in
// the last one, unless that says otherwise.
func TestRegistrationWithQuestions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hs.questions = make(map[string]anyMap)
	for _, gzip := range []bool{false, true} {
		w.hs.set(func(s *stub) { s.gzip = gzip })
		for _, c := range []struct {
			name        string
			first, last anyMap
			want        kind
		}{
			{"first", anyMap{"refresh_token": true}, nil, kindRotate},
			{"first, by the old name", anyMap{memberRefreshOld: true}, nil, kindRotate},
			{"last", anyMap{}, anyMap{"refresh_token": true}, kindRotate},
			{"both", anyMap{"refresh_token": true}, anyMap{"refresh_token": true}, kindRotate},
			{"taken back", anyMap{"refresh_token": true}, anyMap{"refresh_token": false}, kindHeld},
			{"never", anyMap{"device_id": "D"}, nil, kindHeld},
		} {
			a := w.answered(w.beginRegistration(c.first), c.last)
			if got := kindOf(a.text("access_token")); got != c.want || (a.text("refresh_token") != "") != (c.want == kindRotate) {
				t.Errorf("%s: %s", c.name, a.raw)
			}
			w.want(w.do("GET", pathWhoami, a.text("access_token"), nil), 200, "")
		}
	}
	w.hs.set(func(s *stub) {
		for _, r := range s.requests {
			if strings.Contains(r.Body, "refresh_token\":true") {
				t.Errorf("the homeserver was asked for a refresh token: %s", r.Body)
			}
		}
	})
}

// Two registrations at the same time are not taken for each other, and what was
// asked for is forgotten in time. Another gateway knows nothing of it: then the
// mode is held.
func TestQuestionsAreKeptApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hs.questions = make(map[string]anyMap)
	rotate, held := w.beginRegistration(anyMap{"refresh_token": true}), w.beginRegistration(anyMap{})
	if a := w.answered(held, nil); kindOf(a.text("access_token")) != kindHeld {
		t.Errorf("%s", a.raw)
	}
	if a := w.answered(rotate, nil); kindOf(a.text("access_token")) != kindRotate {
		t.Errorf("%s", a.raw)
	}
	late := w.beginRegistration(anyMap{"refresh_token": true})
	w.forward(questionsLife + time.Second)
	if a := w.answered(late, nil); kindOf(a.text("access_token")) != kindHeld {
		t.Errorf("%s", a.raw)
	}
	elsewhere := w.beginRegistration(anyMap{"refresh_token": true})
	w.http.Close()
	must(t, w.gateway.Close())
	w.cfg.Registerer = nil
	w.startGateway()
	a := w.answered(elsewhere, nil)
	if kindOf(a.text("access_token")) != kindHeld || a.text("refresh_token") != "" {
		t.Errorf("%s", a.raw)
	}
	w.want(w.do("GET", pathWhoami, a.text("access_token"), nil), 200, "")
}

// However many registrations are begun, and whatever is in them, no more than
// so much is kept.
func TestQuestionsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hs.questions = make(map[string]anyMap)
	w.gateway.questions = questions{newRecent[[32]byte, asked](recentShards * 2)}
	for range 4 * recentShards {
		w.beginRegistration(anyMap{"refresh_token": true, "device_id": strings.Repeat("x", 1000)})
	}
	if n := w.gateway.questions.kept.size(); n == 0 || n > 2*recentShards {
		t.Errorf("%d are kept", n)
	}
	for i := range w.gateway.questions.kept.shards {
		for _, q := range w.gateway.questions.kept.shards[i].young {
			if len(q.login.device) > maxDevice {
				t.Error("a device's name of any length is kept")
			}
		}
	}
}
