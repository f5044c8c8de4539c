package redis_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/failover"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// upgraded is the content of testdata/f75465c: see the README there.
type upgraded struct {
	Made        int64 // Unix ms
	Redis, Bolt []upgradedSession
}

type upgradedSession struct {
	Homeserver, User, Session, Mode string
	Caveat, Token                   []byte
	Live                            bool
}

const upgradedHomeserver = "hs.example.org"

func upgradeFile(name string) string { return filepath.Join("testdata", "f75465c", name) }

func readUpgraded(t *testing.T) (u upgraded) {
	t.Helper()
	b, err := os.ReadFile(upgradeFile("sessions.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &u); err != nil {
		t.Fatal(err)
	}
	if u.Made == 0 || len(u.Redis) != 7 || len(u.Bolt) != 7 {
		t.Fatalf("%d and %d sessions of %d", len(u.Redis), len(u.Bolt), u.Made)
	}
	return u
}

// now returns the time a minute after the files were made, which then goes on.
func (u upgraded) now() func() time.Time {
	began := time.Now()
	return func() time.Time { return time.UnixMilli(u.Made).Add(time.Minute + time.Since(began)) }
}

// restore runs the commands in a file.
func (s *redisServer) restore(t *testing.T, name string) {
	t.Helper()
	f, err := os.Open(upgradeFile(name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var args []any
		for rest := lines.Text(); rest != ""; rest = strings.TrimPrefix(rest, " ") {
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				t.Fatal(err)
			}
			arg, err := strconv.Unquote(quoted)
			if err != nil {
				t.Fatal(err)
			}
			args, rest = append(args, arg), rest[len(quoted):]
		}
		s.Do(t, args...)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

// copied returns a copy of a file, to be written to.
func copied(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(upgradeFile(name))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// service makes the service that the files are of.
func (u upgraded) service(t *testing.T, st store.Store) *discharger.Service {
	t.Helper()
	seed := func(b byte) *bytes.Reader { return bytes.NewReader(bytes.Repeat([]byte{b}, 64)) }
	key := func(b byte) caveat.KeyPair {
		k, err := caveat.NewKeyPair(caveat.PrivateKey{Key: secret.Key(bytes.Repeat([]byte{b}, 32))})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	opener, err := caveat.NewOpener(caveat.OpenerConfig{Keys: []caveat.KeyPair{key(1)}, Homeservers: []caveat.Homeserver{
		{Name: upgradedHomeserver, Key: key(2).Public}, {Name: "gone.example.org", Key: key(3).Public},
	}})
	if err != nil {
		t.Fatal(err)
	}
	refresh, err := discharger.NewRefreshKey(seed(9))
	if err != nil {
		t.Fatal(err)
	}
	s, err := discharger.New(discharger.Config{Opener: opener, Store: st, RefreshKeys: []discharger.RefreshKey{refresh}}.WithClock(u.now()))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// expect finds every session as it was left.
func (u upgraded) expect(t *testing.T, st store.Store, sessions []upgradedSession) {
	t.Helper()
	// First: a later append makes Redis drop events that are over by its clock.
	page, err := st.(store.Feed).ReadFeed(t.Context(), upgradedHomeserver, "")
	if err != nil || len(page.Entries) < 2 {
		t.Fatalf("the feed has %d entries, %v", len(page.Entries), err)
	}
	for _, e := range page.Entries {
		if _, err := revocation.ParseEvent(e.Data); err != nil {
			t.Errorf("%s: %v", e.Data, err)
		}
	}
	s := u.service(t, st)
	for _, c := range sessions {
		t.Run(c.User+" "+c.Session, func(t *testing.T) {
			req := &discharger.Request{CaveatID: c.Caveat, RefreshToken: c.Token, Addr: netip.MustParseAddr("203.0.113.7"), Client: "test"}
			for range 2 {
				g, err := s.Discharge(t.Context(), req)
				var refusal *discharger.Refusal
				switch {
				case c.Live && err != nil:
					t.Fatalf("a live session is refused: %v", err)
				case c.Live:
					req.RefreshToken = g.RefreshToken
				case !errors.As(err, &refusal):
					t.Fatalf("a session that ended: %v", err)
				}
			}
		})
	}
}

// TestUpgrade opens the data of an earlier version in each kind of store.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	u := readUpgraded(t)
	key, err := caveat.ParseSessionID(u.Redis[0].Session)
	if err != nil {
		t.Fatal(err)
	}
	user := store.UserKey{Homeserver: upgradedHomeserver, User: "@unknown:hs"}
	lostNothing := func(t *testing.T, st store.Store) {
		t.Helper()
		v, err := st.Load(t.Context(), user, key, revocation.DeviceTag{})
		if err != nil || v.Losses != (store.Losses{}) {
			t.Errorf("losses are %+v, %v", v.Losses, err)
		}
	}
	t.Run("redis", func(t *testing.T) {
		s := StartRedis(t)
		s.restore(t, "redis.txt")
		cfg := s.Config()
		cfg = cfg.WithClock(u.now())
		r := OpenRedis(t, cfg)
		lostNothing(t, r)
		u.expect(t, r, u.Redis)
	})
	t.Run("journal", func(t *testing.T) {
		s := StartRedis(t)
		s.restore(t, "redis-before.txt")
		cfg := s.Config()
		cfg = cfg.WithClock(u.now())
		// Redis drops events that are over by its own clock.
		cfg.Replayer = failover.New(revocation.Lifetime{MaxTTL: time.Since(u.now()()) + time.Hour}, nil)
		cfg.Journal = storetest.OpenJournal(t, journal.Config{Path: copied(t, "journal.db")}.WithClock(u.now()))
		if got := storetest.All(t, cfg.Journal); len(got) != 3 {
			t.Errorf("the journal has %+v", got)
		}
		r := OpenRedis(t, cfg)
		if st := r.JournalStats(); st.Replayed == 0 {
			t.Errorf("nothing was replayed: %+v", st)
		}
		u.expect(t, r, u.Redis)
	})
	t.Run("bolt", func(t *testing.T) {
		b, err := bolt.Open(bolt.Config{Path: copied(t, "sessions.db")}.WithClock(u.now()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		lostNothing(t, b)
		u.expect(t, b, u.Bolt)
	})
}
