package discharger_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// TestAnnouncer reads what it writes as a homeserver does, and as those do who
// tell others. The event lasts as long as a discharge that was issued just
// before the loss was noticed.
func TestAnnouncer(t *testing.T) {
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
		a      discharger.Announcer
		entry  revocation.Revocation
		now    time.Time
		want   revocation.Event
		before bool
		lives  time.Duration
	}{
		"session":                        {discharger.Announcer{}, session, now, one, false, 62 * time.Minute},
		"session, softly":                {discharger.Announcer{}, soft, now, oneSoft, false, 62 * time.Minute},
		"session, by an earlier version": {discharger.Announcer{}, old, now, oneSoft, false, 62 * time.Minute},
		"user": {
			discharger.Announcer{MaxTTL: 2 * time.Hour, Skew: 9 * time.Minute}, user, now,
			revocation.Event{User: entry.User, Except: id}, true, 130 * time.Minute,
		},
		"homeserver":   {discharger.Announcer{}, all, now, revocation.Event{All: true}, true, 62 * time.Minute},
		"clock behind": {discharger.Announcer{}, session, at.Add(-time.Hour), one, false, 62*time.Minute - now.Sub(at)},
	} {
		t.Run(what, func(t *testing.T) {
			e, err := c.a.Event(&c.entry, c.now)
			mustDo(t, err)
			c.want.At, c.want.Reason, c.want.Until = at, "again", now.Add(c.lives).UTC()
			if c.before {
				c.want.Before = at.Add(time.Millisecond).UTC()
			}
			until := now.Add(c.lives)
			var times struct{ Before, Until int64 }
			mustDo(t, json.Unmarshal(e.Data, &times))
			got, err := revocation.ParseEvent(e.Data)
			if err != nil || got != c.want || !e.Until.Equal(until) || times.Until != until.UnixMilli() {
				t.Errorf("%s is %+v, %v until %v, want %+v until %v", e.Data, got, err, e.Until, c.want, until)
			}
			if c.before && times.Before != at.UnixMilli()+1 || !c.before && times.Before != 0 {
				t.Errorf("before %d", times.Before)
			}
		})
	}
	device := entry
	device.Kind = revocation.KindDevice
	if e, err := (discharger.Announcer{}).Event(&device, now); err != nil || e.Data != nil {
		t.Errorf("a device's mark needs no event: %s, %v", e.Data, err)
	}
	for what, e := range map[string]revocation.Revocation{
		"no kind": {Homeserver: "h", User: "u"}, "no user": {Kind: revocation.KindUser, Homeserver: "h", At: 1},
	} {
		if got, err := (discharger.Announcer{}).Event(&e, now); err == nil {
			t.Errorf("%s: %s", what, got.Data)
		}
	}
}
