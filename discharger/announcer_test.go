package discharger_test

import (
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
)

// TestAnnouncer reads what it writes as a homeserver does, and as those do who
// tell others. The event lasts as long as a discharge that was issued just
// before the loss was noticed.
func TestAnnouncer(t *testing.T) {
	t.Parallel()
	at, now := time.UnixMilli(1_800_000_000_000).UTC(), time.UnixMilli(1_800_000_090_000).UTC()
	id := caveat.SessionID{7}
	entry := discharger.JournalEntry{Homeserver: "a.example", User: "@alice:a.example", At: at.UnixMilli(), Generation: 3}
	session, user, all := entry, entry, entry
	session.Kind, session.Session = discharger.JournalSession, id
	user.Kind, user.Except = discharger.JournalUser, id
	all.Kind, all.User = discharger.JournalHomeserver, ""
	for what, c := range map[string]struct {
		a     discharger.Announcer
		entry discharger.JournalEntry
		now   time.Time
		want  api.Revocation
		lives time.Duration
		owner string
	}{
		"session": {discharger.Announcer{}, session, now, api.Revocation{Session: id}, 62 * time.Minute, ""},
		"named": {
			discharger.Announcer{Named: map[string]bool{"a.example": true}}, session, now, api.Revocation{Session: id}, 62 * time.Minute, entry.User,
		},
		"user": {
			discharger.Announcer{MaxTTL: 2 * time.Hour, Skew: 9 * time.Minute}, user, now,
			api.Revocation{User: entry.User, Except: id, Before: at.Add(time.Millisecond)}, 130 * time.Minute, entry.User,
		},
		"homeserver":   {discharger.Announcer{}, all, now, api.Revocation{All: true, Before: at.Add(time.Millisecond)}, 62 * time.Minute, ""},
		"clock behind": {discharger.Announcer{}, session, at.Add(-time.Hour), api.Revocation{Session: id}, 62*time.Minute - now.Sub(at), ""},
	} {
		e, err := c.a.Event(&c.entry, c.now)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		c.want.At, c.want.Until, c.want.Reason = at, now.Add(c.lives), api.RevokedEarlier
		var got api.Revocation
		if err := got.UnmarshalJSON(discharger.FeedEntry{Data: e.Data}.Line()); err != nil || got != c.want || !e.Until.Equal(c.want.Until) {
			t.Errorf("%s: %s is %+v, %v until %v, want %+v", what, e.Data, got, err, e.Until, c.want)
		}
		if ended, err := discharger.ReadEvent(e.Data); err != nil || ended.User != c.owner {
			t.Errorf("%s: %+v, %v, want user %q", what, ended, err, c.owner)
		}
	}
	for what, e := range map[string]discharger.JournalEntry{
		"no kind": {Homeserver: "h", User: "u"}, "no user": {Kind: discharger.JournalUser, Homeserver: "h", At: 1},
	} {
		if got, err := (discharger.Announcer{}).Event(&e, now); err == nil {
			t.Errorf("%s: %s", what, got.Data)
		}
	}
}
