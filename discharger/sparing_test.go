package discharger_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/failover"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/testkit"
)

// TestSparingRevivesNone revokes sessions without a record, and then again with an order
// that spares them.
func TestSparingRevivesNone(t *testing.T) {
	t.Run("user", func(t *testing.T) {
		w := newWorld(t)
		l := w.login(caveat.ModeRotate)
		w.later(time.Second)
		testkit.NoError(t, w.revokeUser(l.user(), discharger.Order{}))
		l.over(session.ReasonSessionEnded, false)
		w.later(time.Second)
		testkit.NoError(t, w.revokeUser(l.user(), but(l)))
		l.over(session.ReasonSessionEnded, false)
	})
	t.Run("device", func(t *testing.T) {
		w := newWorld(t)
		l := w.login(caveat.ModeRotate)
		w.later(time.Second)
		testkit.NoError(t, w.revokeDevice(l.user(), "PHONE", discharger.Order{}))
		l.over(session.ReasonSessionEnded, false)
		w.later(time.Second)
		testkit.NoError(t, w.revokeDevice(l.user(), "PHONE", but(l)))
		l.over(session.ReasonSessionEnded, false)
	})
	t.Run("user devices", func(t *testing.T) {
		w := newWorld(t)
		l := w.login(caveat.ModeRotate, device(""))
		w.later(time.Second)
		testkit.NoError(t, w.revokeUser(l.user(), discharger.Order{}))
		w.later(time.Second)
		testkit.NoError(t, w.revokeUser(l.user(), discharger.Order{Devices: true}))
		l.over(session.ReasonSessionEnded, false)
	})
	t.Run("device kind", func(t *testing.T) {
		w := newWorld(t)
		l := w.login(caveat.ModeRotate)
		w.later(time.Second)
		testkit.NoError(t, w.revokeDevice(l.user(), "PHONE", discharger.Order{Soft: true}))
		l.over(session.ReasonSessionEnded, true)
		w.later(time.Second)
		testkit.NoError(t, w.revokeDevice(l.user(), "PHONE", discharger.Order{}))
		l.over(session.ReasonSessionEnded, true)
	})
}

// journalWorld returns a world with a journal. The function copies the store's file
// ("copy") or puts the copy back ("back"), and opens the store again.
func journalWorld(t *testing.T) (*world, func(string)) {
	dir := t.TempDir()
	var w *world
	var cfg discharger.Config
	var b *bolt.Store
	var j *journal.Journal
	open := func() {
		var err error
		j, err = journal.Open(journal.Config{Path: filepath.Join(dir, "journal.db")}.WithClock(cfg.Clock()))
		if err != nil {
			t.Fatal(err)
		}
		b, err = bolt.Open(bolt.Config{Path: filepath.Join(dir, "sessions.db"), Journal: j, Replayer: failover.New(revocation.Lifetime{}, nil)}.WithClock(cfg.Clock()))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Store = b
	}
	w = newWorld(t, func(c *discharger.Config) { cfg = *c; open(); c.Store = cfg.Store })
	t.Cleanup(func() { b.Close(); j.Close() })
	return w, func(how string) {
		b.Close()
		j.Close()
		f, g := filepath.Join(dir, "sessions.db"), filepath.Join(dir, "copy.db")
		switch how {
		case "copy":
		case "back":
			f, g = g, f
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(g, data, 0o600); err != nil {
			t.Fatal(err)
		}
		open()
		s, err := discharger.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		w.service, w.store = s, b
	}
}

// TestLiftedMarkStaysLifted lifts marks made while the clock was ahead, and replays the
// journal on an older copy.
func TestLiftedMarkStaysLifted(t *testing.T) {
	for _, scope := range []string{"user", "homeserver", "device"} {
		t.Run(scope, func(t *testing.T) {
			w, reopen := journalWorld(t)
			ctx := context.Background()
			x := w.login(caveat.ModeRotate)
			w.later(240 * time.Hour)
			reopen("copy")
			switch scope {
			case "user":
				testkit.NoError(t, w.revokeUser(x.user(), discharger.Order{}))
			case "homeserver":
				testkit.NoError(t, w.service.RevokeHomeserver(ctx, "a.example", discharger.Order{}))
			case "device":
				testkit.NoError(t, w.revokeDevice(x.user(), "PHONE", discharger.Order{}))
			}
			w.later(-240 * time.Hour)
			w.later(time.Minute)
			reopen("back")
			x.undecided()
			m, err := w.service.Marks(ctx, x.user())
			testkit.NoError(t, err)
			if !m.User.After(m.Now) && !m.Device.After(m.Now) && !m.Homeserver.After(m.Now) {
				t.Errorf("no mark of %+v is in the future", m)
			}
			if n, err := w.service.LiftMarks(ctx, x.user()); n != 1 || err != nil {
				t.Errorf("lifted %d, %v; want 1", n, err)
			}
			w.later(time.Minute)
			w.login(caveat.ModeRotate, device("PHONE")).must()
			reopen("back")
			w.later(time.Minute)
			w.login(caveat.ModeRotate, device("PHONE")).must()
		})
	}
}

// TestReplayLeavesSparedAlone replays revocations on an older copy: sessions that they
// spared live.
func TestReplayLeavesSparedAlone(t *testing.T) {
	t.Run("age spared", func(t *testing.T) {
		w, reopen := journalWorld(t)
		a := w.login(caveat.ModeRotate)
		a.must()
		w.later(30 * time.Minute)
		b := w.login(caveat.ModeRotate)
		b.must()
		w.later(10 * time.Minute)
		reopen("copy")
		testkit.NoError(t, w.revokeUser(a.user(), but(b)))
		w.later(20 * time.Minute)
		testkit.NoError(t, w.revokeUser(a.user(), discharger.Order{Age: 45 * time.Minute}))
		if n := len(w.sessions(a.user())); n != 1 {
			t.Fatalf("%d sessions live", n)
		}
		reopen("back")
		if n := len(w.sessions(a.user())); n != 1 {
			t.Fatalf("%d sessions live after the replay", n)
		}
	})
	t.Run("age spared, second present", func(t *testing.T) {
		w, reopen := journalWorld(t)
		a := w.login(caveat.ModeRotate)
		a.must()
		w.later(30 * time.Minute)
		b := w.login(caveat.ModeRotate)
		b.must()
		w.later(10 * time.Minute)
		testkit.NoError(t, w.revokeUser(a.user(), but(b)))
		w.later(20 * time.Minute)
		testkit.NoError(t, w.revokeUser(a.user(), discharger.Order{Age: 45 * time.Minute}))
		reopen("copy")
		w.later(20 * time.Minute)
		w.login(caveat.ModeRotate).must()
		testkit.NoError(t, w.revokeUser(a.user(), discharger.Order{Age: 65 * time.Minute}))
		if n := len(w.sessions(a.user())); n != 2 {
			t.Fatalf("%d sessions live", n)
		}
		reopen("back")
		if n := len(w.sessions(a.user())); n != 1 {
			t.Fatalf("%d sessions live after the replay", n)
		}
	})
	t.Run("devices and device", func(t *testing.T) {
		w, reopen := journalWorld(t)
		a := w.login(caveat.ModeRotate, device(""))
		a.must()
		b := w.login(caveat.ModeRotate)
		b.must()
		w.later(time.Hour)
		reopen("copy")
		testkit.NoError(t, w.revokeUser(a.user(), discharger.Order{Devices: true, ExceptDevice: b.cond.Device}))
		if n := len(w.sessions(a.user())); n != 2 {
			t.Fatalf("%d sessions live", n)
		}
		w.later(time.Hour)
		testkit.NoError(t, w.revokeUser(a.user(), discharger.Order{Devices: true, ExceptDevice: b.cond.Device}))
		reopen("back")
		if n := len(w.sessions(a.user())); n != 2 {
			t.Fatalf("%d sessions live after the replay", n)
		}
	})
	t.Run("devices then except", func(t *testing.T) {
		w, reopen := journalWorld(t)
		a := w.login(caveat.ModeRotate, device(""))
		a.must()
		b := w.login(caveat.ModeRotate)
		b.must()
		w.later(time.Hour)
		reopen("copy")
		testkit.NoError(t, w.revokeUser(a.user(), discharger.Order{Devices: true}))
		w.later(time.Hour)
		c := w.login(caveat.ModeRotate)
		c.must()
		testkit.NoError(t, w.revokeUser(a.user(), but(c)))
		if n := len(w.sessions(a.user())); n != 1 {
			t.Fatalf("%d sessions live", n)
		}
		reopen("back")
		if n := len(w.sessions(a.user())); n != 0 {
			t.Fatalf("%d sessions live after the replay", n)
		}
	})
}

// TestAgeHasNoEventOfSpared spares by age a session that was minted before the mark: no
// event may cover it, since receivers compare times of minting.
func TestAgeHasNoEventOfSpared(t *testing.T) {
	w := newWorld(t)
	a := w.login(caveat.ModeRotate)
	w.later(time.Minute)
	b := w.login(caveat.ModeRotate)
	b.must()
	w.later(time.Minute)
	a.must()
	w.later(30 * time.Second)
	seen := len(w.feed("a.example"))
	for _, f := range []func() error{
		func() error { return w.revokeDevice(a.user(), a.cond.Device, discharger.Order{Age: time.Minute}) },
		func() error { return w.revokeUser(a.user(), discharger.Order{Age: time.Minute}) },
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(w.sessions(a.user())); n != 1 {
		t.Fatalf("%d sessions", n)
	}
	for _, e := range w.feed("a.example")[seen:] {
		if e.Session == (caveat.SessionID{}) {
			t.Errorf("event %+v covers a session that is spared", e)
		}
	}
}

func TestRevokeHomeserverSparesNone(t *testing.T) {
	w := newWorld(t)
	l := w.login(caveat.ModeOpen)
	l.must()
	err := w.service.RevokeHomeserver(t.Context(), "a.example", discharger.Order{Age: time.Hour})
	if !errors.Is(err, discharger.ErrBadRequest) {
		t.Errorf("got %v, want a bad request", err)
	}
	l.must()
}

// TestDeviceRecordCovered encodes a device record with an earlier revocation.
func TestDeviceRecordCovered(t *testing.T) {
	v := session.DeviceRecord{
		Revoked: 2000, End: revocation.End{Cause: revocation.CauseRevoked, At: 2000}, Except: caveat.SessionID{1},
		Covered: 1000, CoveredEnd: revocation.End{Soft: true, Cause: revocation.CauseRevoked, At: 1000},
	}
	b, err := v.MarshalBinary()
	testkit.NoError(t, err)
	var got session.DeviceRecord
	if err := got.UnmarshalBinary(b); err != nil || got != v {
		t.Errorf("got %+v, %v; want %+v", got, err, v)
	}
	for n := range b {
		if n > 0 && got.UnmarshalBinary(b[:n]) == nil {
			t.Errorf("%d of %d bytes are a record", n, len(b))
		}
	}
}

func TestRevocationCovered(t *testing.T) {
	v := session.GenerationRecord{Generation: 2, At: 2000, Except: caveat.SessionID{1}, Covered: 1000}
	b, err := v.MarshalBinary()
	testkit.NoError(t, err)
	var got session.GenerationRecord
	if err := got.UnmarshalBinary(b); err != nil || got.Covered != v.Covered || got.Except != v.Except || got.Devices {
		t.Errorf("got %+v, %v; want %+v", got, err, v)
	}
}
