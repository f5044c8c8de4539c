package storetest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redistest"
)

// Device loads the record of a user's device.
func (f *Fixture) Device(t testing.TB, u store.UserKey, tag revocation.DeviceTag) string {
	t.Helper()
	v, err := f.Load(t.Context(), u, noSession, tag)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	if l := f.MustList(t, u); !bytes.Equal(l.Devices[tag], v.Device) {
		t.Fatalf("device is %q and listed as %q", v.Device, l.Devices[tag])
	}
	return string(v.Device)
}

// testDevices takes the records of devices through changes, together with those
// of the user and of a session, and alone.
func testDevices(t *testing.T, f *Fixture) {
	u, other, id := NewUser(), NewUser(), NewSession()
	a, b := revocation.TagOf("A"), revocation.TagOf("B")
	if got := f.Device(t, u, a); got != "" {
		t.Fatalf("a device without a record is %q", got)
	}
	f.MustSwap(t, true, u,
		store.Change{Session: id, New: []byte("session")},
		store.Change{Device: a, New: []byte("a1")},
		store.Change{Device: b, New: []byte("b1")},
		store.Change{New: []byte("user")})
	f.Expect(t, u, id, "session", "user")
	if l := f.MustList(t, u); len(l.Sessions) != 1 || len(l.Devices) != 2 {
		t.Errorf("%d sessions and %d devices are listed, want 1 and 2", len(l.Sessions), len(l.Devices))
	}
	for i, step := range []struct {
		old, new string
		want     bool
		after    string
	}{
		{"", "a2", false, "a1"},
		{"b1", "a2", false, "a1"},
		{"a1", "a2", true, "a2"},
		{"a1", "a2", true, "a2"}, // again
		{"a2", "a2", true, "a2"},
		{"a1", "", false, "a2"},
		{"a2", "", true, ""},
		{"", "a3", true, "a3"},
	} {
		c := store.Change{Device: a}
		if step.old != "" {
			c.Old = []byte(step.old)
		}
		if step.new != "" {
			c.New = []byte(step.new)
		}
		f.MustSwap(t, step.want, u, c)
		if got := f.Device(t, u, a); got != step.after {
			t.Fatalf("step %d left %q, want %q", i, got, step.after)
		}
	}
	if got := f.Device(t, u, b); got != "b1" {
		t.Errorf("the other device is %q", got)
	}
	if got := f.Device(t, other, a); got != "" {
		t.Errorf("the device of another user is %q", got)
	}
	f.Reopen(t, f)
	if got := f.Device(t, u, a); got != "a3" {
		t.Errorf("reopened, the device is %q", got)
	}
}

// testDeviceAllOrNone has a write fail because of a device, and because of
// something else.
func testDeviceAllOrNone(t *testing.T, f *Fixture) {
	u, id, a := NewUser(), NewSession(), revocation.TagOf("A")
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("s1")}, store.Change{Device: a, New: []byte("a1")})
	f.MustSwap(t, false, u, store.Change{Session: id, Old: []byte("s1"), New: []byte("s2")}, store.Change{Device: a, Old: []byte("a0"), New: []byte("a2")})
	f.MustSwap(t, false, u, store.Change{Session: id, Old: []byte("s0"), New: []byte("s2")}, store.Change{Device: a, Old: []byte("a1"), New: []byte("a2")})
	f.Expect(t, u, id, "s1", "")
	if got := f.Device(t, u, a); got != "a1" {
		t.Errorf("the device is %q", got)
	}
	for what, w := range map[string]store.Write{
		"twice": {User: u, Changes: []store.Change{{Device: a, Old: []byte("a1"), New: []byte("a2")}, {Device: a, Old: []byte("a1"), New: []byte("a2")}}},
		"both":  One(u, store.Change{Session: id, Device: a, New: []byte("x")}),
		"empty": One(u, store.Change{Device: a, Old: []byte("a1"), New: []byte{}}),
		"huge":  One(u, store.Change{Device: a, Old: []byte("a1"), New: make([]byte, 64<<10+1)}),
	} {
		t.Run(what, func(t *testing.T) {
			if ok, err := f.Swap(t.Context(), w); ok || err == nil {
				t.Errorf("%s: Swap gave %v, %v", what, ok, err)
			}
		})
	}
}

// testDeviceOutlives keeps the record of a device as long as any session of its
// user, and as long as it was meant to be kept.
func testDeviceOutlives(t *testing.T, f *Fixture) {
	u, id, a := NewUser(), NewSession(), revocation.TagOf("A")
	soon := f.Clock.In(100 * time.Millisecond) // real time has to pass: Redis goes by it
	gone := NewUser()
	f.MustSwap(t, true, gone,
		store.Change{Device: a, New: []byte("device"), Expires: soon},
		store.Change{Session: id, New: []byte("session"), Expires: soon})
	f.MustSwap(t, true, u,
		store.Change{Device: a, New: []byte("device"), Expires: f.Clock.In(time.Minute)},
		store.Change{Session: id, New: []byte("session"), Expires: f.Clock.In(100 * time.Hour)})
	f.Clock.Advance(50 * time.Hour)
	if got := f.Device(t, u, a); got != "device" {
		t.Errorf("beside a session, the device is %q", got)
	}
	f.MustSwap(t, false, u, store.Change{Device: a, New: []byte("another")})
	redistest.Eventually(t, "device and session are forgotten", func() bool { return f.Forget(t, gone) == 0 })
	if got := f.Device(t, gone, a); got != "" {
		t.Errorf("the expired device is %q", got)
	}
}

// testDeviceAliasing hands out copies.
func testDeviceAliasing(t *testing.T, f *Fixture) {
	u, a := NewUser(), revocation.TagOf("A")
	record := []byte("device")
	f.MustSwap(t, true, u, store.Change{Device: a, New: record})
	copy(record, "!!!!!!")
	for range 2 {
		v, err := f.Load(t.Context(), u, noSession, a)
		if err != nil || string(v.Device) != "device" {
			t.Fatalf("Load gives %q, %v", v.Device, err)
		}
		l := f.MustList(t, u)
		if string(l.Devices[a]) != "device" {
			t.Fatalf("List gives %q", l.Devices[a])
		}
		for _, b := range [][]byte{v.Device, l.Devices[a]} {
			copy(b, strings.Repeat("?", len(b)))
		}
	}
}

// testDeviceMany has more devices than one reply of a server holds at once.
func testDeviceMany(t *testing.T, f *Fixture) {
	u := NewUser()
	want := make(map[revocation.DeviceTag][]byte)
	for i := range 300 {
		tag := revocation.TagOf(strings.Repeat("d", i+1))
		want[tag] = []byte{byte(i), byte(i >> 8), 1}
		f.MustSwap(t, true, u, store.Change{Device: tag, New: want[tag]},
			store.Change{Session: caveat.SessionID{0: byte(i), 1: byte(i >> 8), 15: 1}, New: []byte("s")})
	}
	l := f.MustList(t, u)
	if !maps.EqualFunc(l.Devices, want, bytes.Equal) || len(l.Sessions) != 300 {
		t.Errorf("%d devices and %d sessions are listed, want 300 of each", len(l.Devices), len(l.Sessions))
	}
}

// testNow reads the store's time, which goes on.
func testNow(t *testing.T, f *Fixture) {
	before, err := f.Now(t.Context())
	if err != nil || before.IsZero() {
		t.Fatalf("Now: %v, %v", before, err)
	}
	f.Clock.Advance(time.Second)
	after, err := f.Now(t.Context())
	if err != nil || after.Before(before) {
		t.Errorf("Now goes from %v to %v, %v", before, after, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Now(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Now with a context that has ended: %v", err)
	}
}

// testLosses finds the store's birth with every session that has no record, the
// same after the store was opened again.
func testLosses(t *testing.T, f *Fixture) {
	u := NewUser()
	now, err := f.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	born := f.MustLoad(t, u, NewSession()).Losses
	if born.Missing <= 0 || born.Missing > now.UnixMilli() || born.All != 0 {
		t.Errorf("losses are %+v at %d", born, now.UnixMilli())
	}
	f.Reopen(t, f)
	if again := f.MustLoad(t, u, NewSession()).Losses; again != born {
		t.Errorf("reopened, losses are %+v, were %+v", again, born)
	}
}
