package discharger_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
)

// world is a service on a real store, with a clock that only the test moves, and two
// registered homeservers. The clock starts at the real time, which Redis has.
type world struct {
	t       testing.TB
	service *discharger.Service
	store   store.Store
	keys    caveat.KeyPair
	opener  *caveat.Opener
	hs      map[string]caveat.KeyPair
	mu      sync.Mutex
	now     time.Time
	logins  int
}

const rootKey = "0123456789abcdef0123456789abcdef"

var (
	phone = netip.MustParseAddr("203.0.113.7")
	away  = netip.MustParseAddr("198.51.100.66")
)

func newWorld(t testing.TB, change ...func(*discharger.Config)) *world {
	t.Helper()
	w := &world{t: t, now: time.Now().UTC().Truncate(time.Second).Add(-time.Second), hs: make(map[string]caveat.KeyPair)}
	var homeservers []caveat.Homeserver
	w.keys = caveat.GenerateKey()
	for _, name := range []string{"a.example", "b.example"} {
		w.hs[name] = caveat.GenerateKey()
		homeservers = append(homeservers, caveat.Homeserver{Name: name, Key: w.hs[name].Public})
	}
	opener, err := caveat.NewOpener(caveat.OpenerConfig{Keys: []caveat.KeyPair{w.keys}, Homeservers: homeservers})
	if err != nil {
		t.Fatal(err)
	}
	w.opener = opener
	bolt, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "sessions.db")}.WithClock(w.clock))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bolt.Close() })
	w.later(time.Second) // sessions from before the store's birth are lost
	key, err := discharger.NewRefreshKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := discharger.Config{
		Opener: opener, Store: bolt, RefreshKeys: []discharger.RefreshKey{key},
		Limits: session.Limits{Idle: 720 * time.Hour},
	}.WithClock(w.clock)
	for _, f := range change {
		f(&cfg)
	}
	if w.service, err = discharger.New(cfg); err != nil {
		t.Fatal(err)
	}
	w.store = cfg.Store
	w.pastBirth()
	return w
}

// onRedis sets the store to a new Redis.
func onRedis(t testing.TB) func(*discharger.Config) {
	return func(c *discharger.Config) {
		server := redistest.Start(t)
		st, err := redis.Open(t.Context(), redis.Config{
			Addrs: []string{server.Socket}, TagKey: make([]byte, 32),
			ReadTimeout: time.Minute, WriteTimeout: time.Minute, DialTimeout: time.Minute,
		}.WithClock(c.Clock()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { st.Close() })
		// The world's clock is a little behind that of Redis, so the birth of the store
		// is removed, as if an earlier version had created it.
		for _, key := range server.Do(t, "keys", "ds{??}since:*").([]any) {
			server.Do(t, "del", key)
		}
		c.Store = st
	}
}

// eachStore runs a test on each kind of store.
func eachStore(t *testing.T, test func(*testing.T, *world)) {
	t.Run("bolt", func(t *testing.T) {
		t.Parallel()
		test(t, newWorld(t))
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		test(t, newWorld(t, onRedis(t)))
	})
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) later(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// pastBirth moves the clock beyond the birth of the store, and returns when the store's
// clock is as far.
func (w *world) pastBirth() {
	w.t.Helper()
	for first := true; ; first = false {
		now, err := w.store.Now(context.Background())
		if err != nil {
			w.t.Fatal(err)
		}
		if first && now.After(w.clock()) {
			w.later(now.Sub(w.clock()).Truncate(time.Millisecond) + time.Millisecond)
		}
		if !now.Before(w.clock()) {
			return
		}
	}
}

// pastMarks moves the clock beyond the store's, which marks have: no test moves the
// clock of Redis.
func (w *world) pastMarks() {
	w.t.Helper()
	now, err := w.store.Now(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	w.later(max(time.Second, now.Sub(w.clock()).Truncate(time.Second)+2*time.Second))
}

// login seals the condition of a new session, as a homeserver does. Each has another
// device, unless change sets one.
func (w *world) login(mode caveat.Mode, change ...func(*caveat.Condition)) *login {
	w.t.Helper()
	id := caveat.NewSessionID()
	w.logins++
	device := "PHONE"
	if w.logins > 1 {
		device += strconv.Itoa(w.logins)
	}
	l := &login{w: w, homeserver: "a.example", version: caveat.V2}
	l.cond = caveat.Condition{Session: id, User: "@alice:a.example", Device: device, Minted: w.clock().UnixMilli(), Mode: mode}
	for _, f := range change {
		f(&l.cond)
	}
	l.seal()
	return l
}

type login struct {
	w          *world
	homeserver string
	version    caveat.Version
	cond       caveat.Condition
	caveat     []byte
}

func (l *login) seal() {
	l.w.t.Helper()
	text, err := l.cond.Encode()
	if err != nil {
		l.w.t.Fatal(err)
	}
	l.caveat, err = caveat.Seal(caveat.SealParams{
		Version: l.version, Homeserver: l.w.hs[l.homeserver], Discharger: l.w.keys.Public,
		RootKey: []byte(rootKey), Condition: text,
	})
	if err != nil {
		l.w.t.Fatal(err)
	}
}

func device(name string) func(*caveat.Condition) {
	return func(c *caveat.Condition) { c.Device = name }
}

func (l *login) user() store.UserKey {
	return store.UserKey{Homeserver: l.homeserver, User: l.cond.User}
}

// revokeBy revokes the session by an order.
func (l *login) revokeBy(o discharger.Order) error {
	_, err := l.w.service.Revoke(context.Background(), l.user(), l.cond.Session, o)
	return err
}

func (w *world) revokeUser(user store.UserKey, o discharger.Order) error {
	_, err := w.service.RevokeUser(context.Background(), user, o)
	return err
}

func (w *world) revokeDevice(user store.UserKey, device string, o discharger.Order) error {
	_, err := w.service.RevokeDevice(context.Background(), user, device, o)
	return err
}

// but returns the order that spares a session.
func but(l *login) discharger.Order { return discharger.Order{Except: l.cond.Session} }

type option func(*discharger.Request)

func token(b []byte) option      { return func(r *discharger.Request) { r.RefreshToken = b } }
func requestID(id string) option { return func(r *discharger.Request) { r.RequestID = id } }
func at(addr netip.Addr) option  { return func(r *discharger.Request) { r.Addr = addr } }
func homeserver(n string) option { return func(r *discharger.Request) { r.Homeserver = n } }
func client(agent string) option { return func(r *discharger.Request) { r.Client = agent } }
func identifier(id string) option {
	return func(r *discharger.Request) { r.Caveat, r.CaveatID = r.CaveatID, []byte(id) }
}

func (l *login) request(opts ...option) *discharger.Request {
	r := &discharger.Request{CaveatID: l.caveat, Addr: phone, Client: "Element X/26.11.1 (iOS 19)"}
	for _, o := range opts {
		o(r)
	}
	return r
}

func (l *login) discharge(opts ...option) (*discharger.Grant, error) {
	return l.w.service.Discharge(context.Background(), l.request(opts...))
}

// must demands a discharge that satisfies the caveat.
func (l *login) must(opts ...option) *discharger.Grant {
	l.w.t.Helper()
	g, err := l.discharge(opts...)
	if err != nil {
		l.w.t.Fatalf("discharge: %v", err)
	}
	l.check(g)
	return g
}

// check verifies a discharge as a homeserver would, with the reference library.
func (l *login) check(g *discharger.Grant) []string {
	l.w.t.Helper()
	body, err := g.Discharge.AppendJSON(nil)
	if err != nil {
		l.w.t.Fatal(err)
	}
	var d bakery.Macaroon
	if err := json.Unmarshal(body, &d); err != nil {
		l.w.t.Fatalf("%s: %v", body, err)
	}
	version := macaroon.V2
	if l.version == caveat.V1 {
		version = macaroon.V1
	}
	access, err := macaroon.New([]byte("access root key"), []byte("access"), "", version)
	if err != nil {
		l.w.t.Fatal(err)
	}
	if err := access.AddThirdPartyCaveat([]byte(rootKey), d.M().Id(), "https://discharger.example"); err != nil {
		l.w.t.Fatal(err)
	}
	bound := d.M().Clone()
	bound.Bind(access.Signature())
	conditions, err := access.VerifySignature([]byte("access root key"), macaroon.Slice{bound})
	if err != nil {
		l.w.t.Fatalf("%s does not verify: %v", body, err)
	}
	return conditions
}

func (l *login) refused(want session.Reason, opts ...option) *discharger.Refusal {
	l.w.t.Helper()
	g, err := l.discharge(opts...)
	var r *discharger.Refusal
	if !errors.As(err, &r) || r.Reason != want {
		l.w.t.Fatalf("got %+v, %v; want a refusal (%s)", g, err, want)
	}
	return r
}

// over demands a refusal because the session has ended, softly or hard.
func (l *login) over(want session.Reason, soft bool, opts ...option) *discharger.Refusal {
	l.w.t.Helper()
	r := l.refused(want, opts...)
	if !r.Ended || r.SoftLogout != soft {
		l.w.t.Fatalf("refused (%s): ended %v, soft %v; want an end, soft %v", r.Reason, r.Ended, r.SoftLogout, soft)
	}
	return r
}

// alive demands a refusal that leaves the session and its record unchanged.
func (l *login) alive(want session.Reason, opts ...option) *discharger.Refusal {
	l.w.t.Helper()
	var r *discharger.Refusal
	l.unchanged(func() { r = l.refused(want, opts...) })
	if r.Ended || r.SoftLogout {
		l.w.t.Fatalf("refused (%s): ended %v, soft %v; want no end", r.Reason, r.Ended, r.SoftLogout)
	}
	return r
}

func (l *login) undecided(opts ...option) error {
	l.w.t.Helper()
	g, err := l.discharge(opts...)
	if g != nil || !errors.Is(err, discharger.ErrUnavailable) {
		l.w.t.Fatalf("got %+v, %v; want unavailable", g, err)
	}
	return err
}

func (l *login) logout(scope discharger.Scope, opts ...option) error {
	return l.w.service.Logout(context.Background(), l.request(opts...), scope)
}

// stored returns the session's stored record.
func (l *login) stored() []byte {
	l.w.t.Helper()
	v, err := l.w.store.Load(context.Background(), store.UserKey{Homeserver: l.homeserver, User: l.cond.User}, l.cond.Session, revocation.DeviceTag{})
	if err != nil {
		l.w.t.Fatal(err)
	}
	return v.Session
}

// unchanged runs f and demands that the session's record has not changed.
func (l *login) unchanged(f func()) {
	l.w.t.Helper()
	before := l.stored()
	f()
	if after := l.stored(); !bytes.Equal(before, after) {
		l.w.t.Errorf("record changed\nfrom %x\nto   %x", before, after)
	}
}
