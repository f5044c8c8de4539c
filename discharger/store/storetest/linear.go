package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redistest"
)

// Pause lets others have the machine.
func Pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// linearUsers have two rotating sessions and an open one each.
const (
	linearUsers = 12
	linearCalls = 8 // of each client, and two more when nothing goes wrong any longer
)

// Linear is one run: two services over a store, clients of all sessions, and
// something that goes wrong meanwhile.
type Linear struct {
	Tabs      int                             // clients that share one rotating session
	Forgetful bool                            // refreshes may be lost
	Limits    session.Limits                  // of the services
	During    func(loggedOut <-chan struct{}) // causes faults
	Settled   func()                          // called when all are logged in; nil: nothing
}

// Run returns whether the history is one that the model allows.
func (l Linear) Run(t *testing.T, s store.Store) porcupine.CheckResult {
	t.Helper()
	if l.Limits.Grace == 0 {
		l.Limits.Grace = time.Hour // however slow the machine
	}
	is := NewIssuer(t)
	for range 2 {
		is.Serve(s, l.Limits)
	}
	initial := make(map[int]modelState)
	var users [linearUsers][3]*Device
	name := fmt.Sprintf("@%s-%d", t.Name(), rand.Uint64())
	for u := range users {
		var st modelState
		for i := range users[u] {
			mode := caveat.ModeRotate
			if st[i].open = i == 2; st[i].open {
				mode = caveat.ModeOpen
			}
			d := is.LoginMode(fmt.Sprintf("%s-%d:hs", name, u), mode)
			if err := d.Refresh(t.Context()); err != nil {
				t.Fatalf("log in: %v", err)
			}
			st[i].successor = string(d.token)
			users[u][i] = d
		}
		initial[u] = st
	}
	if l.Settled != nil {
		l.Settled()
	}
	rec := &recorder{start: time.Now()}
	loggedOut, over := make(chan struct{}), make(chan struct{})
	var clients, logouts sync.WaitGroup
	clients.Go(func() {
		defer close(over)
		if l.During != nil {
			l.During(loggedOut)
		}
	})
	var id atomic.Int64
	for u := range users {
		for i, d := range users[u] {
			tabs := l.Tabs
			if i == 2 {
				tabs = 1
			}
			shared := &sharedToken{token: d.token, epoch: d.Epoch}
			for range tabs {
				c := &linearClient{Device: d, rec: rec, user: u, index: i, id: int(id.Add(1)), shared: shared}
				clients.Go(func() { c.refreshes(t, over) })
			}
		}
		c := &linearClient{Device: users[u][u%3], rec: rec, user: u, index: u % 3, id: int(id.Add(1))}
		logouts.Go(func() { c.logsOut(t, u) })
	}
	logouts.Wait()
	close(loggedOut)
	clients.Wait()
	return rec.judge(t, initial, l.Forgetful)
}

// sharedToken is where the clients of one session keep it.
type sharedToken struct {
	mu    sync.Mutex
	token []byte
	epoch uint64
}

func (s *sharedToken) get() ([]byte, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token, s.epoch
}

func (s *sharedToken) put(token []byte, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch >= s.epoch {
		s.token, s.epoch = token, epoch
	}
}

// linearClient makes calls one after the other and has them written down.
type linearClient struct {
	*Device
	rec             *recorder
	user, index, id int
	shared          *sharedToken
}

func (c *linearClient) call(t *testing.T, kind callKind, token []byte, epoch uint64, do func(context.Context, *discharger.Service) (string, error)) modelAnswer {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	a := c.rec.call(c.id, modelCall{c.user, kind, c.index, string(token), epoch}, func() modelAnswer {
		got, err := do(ctx, c.Any())
		var refusal *discharger.Refusal
		switch {
		case err == nil:
			return modelAnswer{token: got}
		case errors.As(err, &refusal):
			return modelAnswer{reason: refusal.Reason}
		}
		return modelAnswer{undecided: true}
	})
	if a.undecided { // one that is not decided is enough for an outage
		redistest.Eventually(t, "the store works again", func() bool {
			_, err := c.Any().Sessions(t.Context(), c.Device.User)
			return err == nil
		})
	}
	return a
}

// refreshes is a tab: it presents the token that the session has, and tries
// the same again until that is decided. A quarter of its grants it reports as
// seen.
func (c *linearClient) refreshes(t *testing.T, over <-chan struct{}) {
	for n := range linearCalls + 2 {
		if n == linearCalls {
			<-over
		}
		token, epoch := c.shared.get()
		request := fmt.Sprintf("%d-%d", c.id, n)
		for again := true; again; {
			a := c.call(t, callRefresh, token, epoch, func(ctx context.Context, s *discharger.Service) (string, error) {
				r := &discharger.Request{CaveatID: c.caveat, RefreshToken: token, RequestID: request, Addr: deviceAddr, Client: "test"}
				g, err := s.Discharge(ctx, r)
				if err != nil {
					return "", err
				}
				c.shared.put(g.RefreshToken, g.Epoch)
				epoch = g.Epoch
				return string(g.RefreshToken), nil
			})
			again = a.undecided
			if a.reason != "" {
				Pause(t.Context(), time.Millisecond)
			}
		}
		if n%4 == 3 && epoch > 0 {
			c.call(t, callSeen, nil, epoch, func(ctx context.Context, s *discharger.Service) (string, error) {
				return "", s.Seen(ctx, c.Device.User, c.Session, epoch)
			})
		}
		Pause(t.Context(), time.Duration(rand.IntN(10))*time.Millisecond)
	}
}

// logsOut ends one session, or all others, while the other clients are active.
func (c *linearClient) logsOut(t *testing.T, u int) {
	Pause(t.Context(), time.Duration(10+rand.IntN(20))*time.Millisecond)
	for again := true; again; {
		kind := callLogout
		if u%2 == 0 {
			kind = callLogoutOthers
		}
		a := c.call(t, kind, nil, 0, func(ctx context.Context, s *discharger.Service) (string, error) {
			if kind == callLogout {
				_, err := s.Revoke(ctx, c.Device.User, c.Session, discharger.Order{})
				return "", err
			}
			_, err := s.RevokeUser(ctx, c.Device.User, discharger.Order{Except: c.Session})
			return "", err
		})
		again = a.undecided
	}
}

// Flaky is a store that is slow, and sometimes fails before or after it made a
// change.
type Flaky struct{ store.Store }

var errFlaky = errors.New("connection reset by peer")

func (f *Flaky) trouble() bool {
	Pause(context.Background(), time.Duration(rand.IntN(3))*time.Millisecond)
	return rand.IntN(30) == 0
}

// Load implements store.Store.
func (f *Flaky) Load(ctx context.Context, u store.UserKey, id caveat.SessionID, device revocation.DeviceTag) (store.View, error) {
	if f.trouble() {
		return store.View{}, errFlaky
	}
	return f.Store.Load(ctx, u, id, device)
}

// Swap implements store.Store.
func (f *Flaky) Swap(ctx context.Context, w store.Write) (bool, error) {
	if f.trouble() {
		return false, errFlaky
	}
	ok, err := f.Store.Swap(ctx, w)
	if f.trouble() {
		return false, errFlaky
	}
	return ok, err
}

// ExpectLinear fails the test unless the history is linearizable.
func ExpectLinear(t *testing.T, got porcupine.CheckResult) {
	t.Helper()
	if got != porcupine.Ok {
		t.Errorf("the history is %s", got)
	}
}
