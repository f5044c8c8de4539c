package failover

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// TestEvent reads the event of a replay as a homeserver does. It lasts as long as a
// discharge that was issued just before the loss was noticed.
func TestEvent(t *testing.T) {
	t.Parallel()
	at, now := time.UnixMilli(1_800_000_000_000).UTC(), time.UnixMilli(1_800_000_090_000).UTC()
	id := caveat.SessionID{7}
	entry := revocation.Revocation{Homeserver: "a.example", User: "@alice:a.example", At: at.UnixMilli(), Generation: 3}
	session, soft, old, user, all := entry, entry, entry, entry, entry
	session.Kind, session.Session, session.Cause = revocation.KindSession, id, revocation.CauseLogout
	soft.Kind, soft.Session, soft.Cause, soft.Soft = revocation.KindSession, id, revocation.CauseReuse, true
	old.Kind, old.Session = revocation.KindSession, id
	user.Kind, user.Except = revocation.KindUser, id
	all.Kind, all.User = revocation.KindHomeserver, ""
	one := revocation.Event{Session: id, User: entry.User}
	oneSoft := one
	oneSoft.Soft = true
	for what, c := range map[string]struct {
		a      revocation.Lifetime
		entry  revocation.Revocation
		now    time.Time
		want   revocation.Event
		before bool
		lives  time.Duration
	}{
		"session":                        {revocation.Lifetime{}, session, now, one, false, 62 * time.Minute},
		"session, softly":                {revocation.Lifetime{}, soft, now, oneSoft, false, 62 * time.Minute},
		"session, by an earlier version": {revocation.Lifetime{}, old, now, oneSoft, false, 62 * time.Minute},
		"user": {
			revocation.Lifetime{MaxTTL: 2 * time.Hour, Skew: 9 * time.Minute}, user, now,
			revocation.Event{User: entry.User, Except: id}, true, 130 * time.Minute,
		},
		"homeserver":   {revocation.Lifetime{}, all, now, revocation.Event{All: true}, true, 62 * time.Minute},
		"clock behind": {revocation.Lifetime{}, session, at.Add(-time.Hour), one, false, 62*time.Minute - now.Sub(at)},
	} {
		t.Run(what, func(t *testing.T) {
			e := lineOf(t, c.a, c.entry, c.now)
			c.want.At, c.want.Reason, c.want.Until = at, "again", now.Add(c.lives).UTC()
			if c.before {
				c.want.Before = at.Add(time.Millisecond).UTC()
			}
			until := now.Add(c.lives)
			var times struct{ Before, Until int64 }
			if err := json.Unmarshal(e.Data, &times); err != nil {
				t.Fatal(err)
			}
			got, err := revocation.ParseEvent(e.Data)
			if err != nil || got != c.want || e.Until != until.UnixMilli() || times.Until != until.UnixMilli() {
				t.Errorf("%s is %+v, %v until %v, want %+v until %v", e.Data, got, err, e.Until, c.want, until)
			}
			if c.before && times.Before != at.UnixMilli()+1 || !c.before && times.Before != 0 {
				t.Errorf("before %d", times.Before)
			}
		})
	}
	device := entry
	device.Kind = revocation.KindDevice
	if got := New(revocation.Lifetime{}, nil).again(t.Context(), []revocation.Revocation{device}, now)[0]; got.Until != 0 {
		t.Errorf("a device's mark needs no event: %+v", got)
	}
	for what, e := range map[string]revocation.Revocation{
		"no kind": {Homeserver: "h", User: "u"}, "no user": {Kind: revocation.KindUser, Homeserver: "h", At: 1},
	} {
		if got := New(revocation.Lifetime{}, nil).again(t.Context(), []revocation.Revocation{e}, now)[0]; got.Until != 0 {
			t.Errorf("%s: %+v", what, got)
		}
	}
}

// lineOf returns the event of a revocation that a replay restores.
func lineOf(t *testing.T, life revocation.Lifetime, r revocation.Revocation, now time.Time) revocation.Line {
	t.Helper()
	lines, err := revocation.Lines(New(life, nil).again(t.Context(), []revocation.Revocation{r}, now))
	if err != nil || len(lines) != 1 {
		t.Fatalf("%d events, %v", len(lines), err)
	}
	return lines[0]
}
