package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
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

// linearUsers have two rotating sessions and an open one each.
const (
	linearUsers = 12
	linearCalls = 8 // of each client, and two more when nothing goes wrong any longer
)

// linear is one run: two services over a store, clients of all sessions, and
// something that goes wrong meanwhile.
type linear struct {
	tabs      int                             // clients that share one rotating session
	forgetful bool                            // refreshes may be lost
	limits    session.Limits                  // of the services
	during    func(loggedOut <-chan struct{}) // what goes wrong
	settled   func()                          // called when all are logged in; nil: nothing
}

// run returns whether the history is one that the model allows.
func (l linear) run(t *testing.T, s discharger.Store) porcupine.CheckResult {
	t.Helper()
	if l.limits.Grace == 0 {
		l.limits.Grace = time.Hour // however slow the machine
	}
	is := newIssuer(t)
	for range 2 {
		is.serve(s, l.limits)
	}
	initial := make(map[int]modelState)
	var users [linearUsers][3]*device
	name := fmt.Sprintf("@%s-%d", t.Name(), rand.Uint64())
	for u := range users {
		var st modelState
		for i := range users[u] {
			mode := caveat.ModeRotate
			if st[i].open = i == 2; st[i].open {
				mode = caveat.ModeOpen
			}
			d := is.loginMode(fmt.Sprintf("%s-%d:hs", name, u), mode)
			if err := d.refresh(t.Context()); err != nil {
				t.Fatalf("log in: %v", err)
			}
			st[i].successor = string(d.token)
			users[u][i] = d
		}
		initial[u] = st
	}
	if l.settled != nil {
		l.settled()
	}
	rec := &recorder{start: time.Now()}
	loggedOut, over := make(chan struct{}), make(chan struct{})
	var clients, logouts sync.WaitGroup
	clients.Go(func() {
		defer close(over)
		if l.during != nil {
			l.during(loggedOut)
		}
	})
	var id atomic.Int64
	for u := range users {
		for i, d := range users[u] {
			tabs := l.tabs
			if i == 2 {
				tabs = 1
			}
			shared := &sharedToken{token: d.token, epoch: d.epoch}
			for range tabs {
				c := &linearClient{device: d, rec: rec, user: u, index: i, id: int(id.Add(1)), shared: shared}
				clients.Go(func() { c.refreshes(t, over) })
			}
		}
		c := &linearClient{device: users[u][u%3], rec: rec, user: u, index: u % 3, id: int(id.Add(1))}
		logouts.Go(func() { c.logsOut(t, u) })
	}
	logouts.Wait()
	close(loggedOut)
	clients.Wait()
	return rec.judge(t, initial, l.forgetful)
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
	*device
	rec             *recorder
	user, index, id int
	shared          *sharedToken
}

func (c *linearClient) call(t *testing.T, kind callKind, token []byte, epoch uint64, do func(context.Context, *discharger.Service) (string, error)) modelAnswer {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	a := c.rec.call(c.id, modelCall{c.user, kind, c.index, string(token), epoch}, func() modelAnswer {
		got, err := do(ctx, c.any())
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
			_, err := c.any().Sessions(t.Context(), c.device.user)
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
				r := &discharger.Request{ID: c.caveat, RefreshToken: token, RequestID: request, Addr: deviceAddr, Client: "test"}
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
				pause(t.Context(), time.Millisecond)
			}
		}
		if n%4 == 3 && epoch > 0 {
			c.call(t, callSeen, nil, epoch, func(ctx context.Context, s *discharger.Service) (string, error) {
				return "", s.Seen(ctx, c.device.user, c.session, epoch)
			})
		}
		pause(t.Context(), time.Duration(rand.IntN(10))*time.Millisecond)
	}
}

// logsOut ends one session, or all others, once everybody is busy, and knows
// then that it is so.
func (c *linearClient) logsOut(t *testing.T, u int) {
	pause(t.Context(), time.Duration(10+rand.IntN(20))*time.Millisecond)
	for again := true; again; {
		kind := callLogout
		if u%2 == 0 {
			kind = callLogoutOthers
		}
		a := c.call(t, kind, nil, 0, func(ctx context.Context, s *discharger.Service) (string, error) {
			if kind == callLogout {
				_, err := s.Revoke(ctx, c.device.user, c.session, discharger.Order{})
				return "", err
			}
			_, err := s.RevokeUser(ctx, c.device.user, discharger.Order{Except: c.session})
			return "", err
		})
		again = a.undecided
	}
}

// flaky is a store that fails now and then, before or after it did what it was
// asked for, and takes its time.
type flaky struct{ discharger.Store }

var errFlaky = errors.New("connection reset by peer")

func (f *flaky) trouble() bool {
	pause(context.Background(), time.Duration(rand.IntN(3))*time.Millisecond)
	return rand.IntN(30) == 0
}

func (f *flaky) Load(ctx context.Context, u discharger.UserKey, id caveat.SessionID, device revocation.DeviceTag) (discharger.View, error) {
	if f.trouble() {
		return discharger.View{}, errFlaky
	}
	return f.Store.Load(ctx, u, id, device)
}

func (f *flaky) Swap(ctx context.Context, w discharger.Write) (bool, error) {
	if f.trouble() {
		return false, errFlaky
	}
	ok, err := f.Store.Swap(ctx, w)
	if f.trouble() {
		return false, errFlaky
	}
	return ok, err
}

func linearBolt(t *testing.T) *store.Bolt {
	t.Helper()
	return openBolt(t, store.BoltConfig{Path: filepath.Join(t.TempDir(), "sessions.db")})
}

func expectLinear(t *testing.T, got porcupine.CheckResult) {
	t.Helper()
	if got != porcupine.Ok {
		t.Errorf("the history is %s", got)
	}
}

func TestLinearBolt(t *testing.T) {
	t.Parallel()
	expectLinear(t, linear{tabs: 2}.run(t, &flaky{linearBolt(t)}))
}

// TestLinearRedis drops replies, makes the server hang, and kills it: it has
// everything on its disk.
func TestLinearRedis(t *testing.T) {
	t.Parallel()
	s := startRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	p := startProxy(t, s.Socket)
	cfg := s.config()
	cfg.Addrs, cfg.ReadTimeout = []string{p.addr}, 2*time.Second
	cfg.Journal = openJournal(t, store.JournalConfig{})
	r := openRedis(t, cfg)
	expectLinear(t, linear{tabs: 2, during: func(<-chan struct{}) {
		p.every.Store(40)
		defer p.every.Store(0)
		pause(t.Context(), 40*time.Millisecond)
		s.pause(t)
		pause(t.Context(), 100*time.Millisecond)
		s.resume(t)
		pause(t.Context(), 20*time.Millisecond)
		s.crash(t)
	}}.run(t, r))
}

// TestLinearSentinel loses the primary and what it acknowledged last.
func TestLinearSentinel(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	t.Run("journal", func(t *testing.T) {
		cfg := sentinelConfig(s)
		cfg.ReadTimeout, cfg.Journal = 2*time.Second, openJournal(t, store.JournalConfig{})
		expectLinear(t, lossy(t, s).run(t, openRedis(t, cfg)))
	})
	s.Rejoin(t)
	t.Run("no journal", func(t *testing.T) {
		cfg := sentinelConfig(s)
		cfg.ReadTimeout = 2 * time.Second
		if got := lossy(t, s).run(t, openRedis(t, cfg)); got != porcupine.Illegal {
			t.Errorf("without a journal, logouts that were lost go unnoticed: the history is %s", got)
		}
	})
}

// lossy cuts off the replicas, lets everybody get far enough, and promotes one
// of them.
func lossy(t *testing.T, s *redistest.Sentinel) linear {
	return linear{tabs: 1, forgetful: true, settled: func() { s.Cut(t) }, during: func(loggedOut <-chan struct{}) {
		<-loggedOut
		s.Primary(t).Kill(t)
		s.Failover(t)
	}}
}

// TestLinearBroken runs the same with safeguards taken away. Each of these has
// to be noticed.
func TestLinearBroken(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		linear
		spoil func(discharger.Store) discharger.Store
	}{
		"swap without compare": {linear{tabs: 2}, func(s discharger.Store) discharger.Store { return &blind{s} }},
		"reads from a cache": {linear{tabs: 2}, func(s discharger.Store) discharger.Store {
			return &stale{Store: s, views: make(map[caveat.SessionID]discharger.View)}
		}},
		"retries are new requests": {linear{tabs: 2, limits: session.Limits{Grace: 1}},
			func(s discharger.Store) discharger.Store { return &flaky{s} }},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for range 30 { // luck is needed for it to show, but not much
				if c.run(t, c.spoil(linearBolt(t))) == porcupine.Illegal {
					return
				}
			}
			t.Error("it goes unnoticed")
		})
	}
}

// blind writes whatever is there.
type blind struct{ discharger.Store }

func (b *blind) Swap(ctx context.Context, w discharger.Write) (bool, error) {
	for {
		for i := range w.Changes {
			v, err := b.Store.Load(ctx, w.User, w.Changes[i].Session, w.Changes[i].Device)
			if err != nil {
				return false, err
			}
			switch w.Changes[i].Old = v.Session; {
			case w.Changes[i].Device != revocation.DeviceTag{}:
				w.Changes[i].Old = v.Device
			case w.Changes[i].Session == caveat.SessionID{}:
				w.Changes[i].Old = v.User
			}
		}
		if ok, err := b.Store.Swap(ctx, w); ok || err != nil {
			return ok, err
		}
	}
}

// stale reads each session once.
type stale struct {
	discharger.Store
	mu    sync.Mutex
	views map[caveat.SessionID]discharger.View
}

func (s *stale) Load(ctx context.Context, u discharger.UserKey, id caveat.SessionID, device revocation.DeviceTag) (discharger.View, error) {
	s.mu.Lock()
	v, ok := s.views[id]
	s.mu.Unlock()
	if ok && rand.IntN(10) > 0 {
		return v, nil
	}
	v, err := s.Store.Load(ctx, u, id, device)
	if err == nil && v.Session != nil {
		s.mu.Lock()
		s.views[id] = v
		s.mu.Unlock()
	}
	return v, err
}
