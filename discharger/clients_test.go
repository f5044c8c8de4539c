package discharger_test

import (
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/clientname"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/policy"
)

const (
	firefox       = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0"
	newFirefox    = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
	chrome        = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
	elementPhone  = "Element/1.6.18 (Google Pixel 7; Android 14; UQ1A.240105.004; Flavour GooglePlay; MatrixAndroidSdk2 1.6.18)"
	updatedPhone  = "Element/1.6.22 (Google Pixel 7; Android 15; AP3A.241005.015; Flavour GooglePlay; MatrixAndroidSdk2 1.6.22)"
	elementXPhone = "Element X/25.05.3 (Google Pixel 7; Android 14; UQ1A.240105.004; Sdk d5f3d01)"
)

// superseded returns a session of a client, and a superseded refresh token of it.
func superseded(w *world, agent string) (l *login, old []byte) {
	l = w.login(caveat.ModeRotate)
	old = l.must(client(agent)).RefreshToken
	last := old
	for range 2 {
		w.later(time.Minute)
		last = l.must(token(last), client(agent)).RefreshToken
	}
	return l, old
}

// asStoredBefore rewrites the session's record with the clients of an earlier version:
// the first 40 bytes of the User-Agent.
func (l *login) asStoredBefore(agent string) {
	l.w.t.Helper()
	raw := l.stored()
	var r session.Record
	testkit.NoError(l.w.t, r.UnmarshalBinary(raw))
	r.First.Client = clientname.Cut(agent, 40)
	r.Last.Client = r.First.Client
	next, err := r.MarshalBinary()
	testkit.NoError(l.w.t, err)
	w := store.Write{User: l.user(), Changes: []store.Change{{Session: l.cond.Session, Old: raw, New: next}}}
	if ok, err := l.w.store.Swap(l.w.t.Context(), w); !ok || err != nil {
		l.w.t.Fatal(ok, err)
	}
}

// TestClientsApart presents a superseded token from the address of the last use. From
// the same client, updated or not, it is refused; from another one it ends the session.
func TestClientsApart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, was, is string
		theft         bool
	}{
		{"the same browser", firefox, firefox, false},
		{"the browser, updated", firefox, newFirefox, false},
		{"another browser", firefox, chrome, true},
		{"the same app", elementPhone, elementPhone, false},
		{"the app and its phone, updated", elementPhone, updatedPhone, false},
		{"another app on the phone", elementPhone, elementXPhone, true},
		{"a program, updated", "mautrix-go/0.18.0 go/1.22", "mautrix-go/0.25.1 go/1.25", false},
	} {
		for _, before := range []bool{false, true} {
			if before && c.was == firefox && c.theft {
				continue // the stored bytes are the same for both browsers
			}
			name := c.name
			if before {
				name += ", stored by an earlier version"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				l, old := superseded(w, c.was)
				if before {
					l.asStoredBefore(c.was)
				}
				if c.theft {
					l.over(session.ReasonTokenReused, true, token(old), client(c.is))
				} else {
					l.alive(session.ReasonTokenSuperseded, token(old), client(c.is))
				}
			})
		}
	}
}

// TestPolicyComparesClients tests that a policy can compare the client of the request
// with those of the record, which may be of an earlier version.
func TestPolicyComparesClients(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, was, is string
		same          bool
	}{
		{"the same browser", firefox, firefox, true},
		{"the browser, updated", firefox, newFirefox, true},
		{"another browser", chrome, firefox, false},
		{"the app and its phone, updated", elementPhone, updatedPhone, true},
		{"another app", elementPhone, elementXPhone, false},
	} {
		for _, before := range []bool{false, true} {
			if before && c.was == chrome {
				continue
			}
			name := c.name
			if before {
				name += ", stored by an earlier version"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w, p := newRuledWorld(t)
				p.set(policy.Decision{Effect: policy.EffectAllow})
				l := w.login(caveat.ModeOpen)
				l.must(client(c.was))
				if before {
					l.asStoredBefore(c.was)
				}
				l.must(client(c.is))
				in := p.last()
				if in.Request.Client != clientname.Of(c.is) || in.Request.UserAgent != c.is {
					t.Errorf("request: %+v", in.Request)
				}
				for _, stored := range []string{in.Session.FirstClient, in.Session.LastClient} {
					if (stored == in.Request.Client) != c.same {
						t.Errorf("stored client %q, requesting client %q", stored, in.Request.Client)
					}
				}
			})
		}
	}
}

// TestClientsShown lists sessions stored by this version and an earlier one.
func TestClientsShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.login(caveat.ModeOpen)
	l.must(client(elementPhone))
	const want = "Element on Android, Google Pixel 7"
	for range 2 {
		s := w.sessions(alice("a.example"))[0]
		if s.First.Client != want || s.Last.Client != want {
			t.Errorf("first %q, last %q", s.First.Client, s.Last.Client)
		}
		l.asStoredBefore(elementPhone)
	}
}
