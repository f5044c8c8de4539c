package discharger

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
)

// revoked is the content of an event: one session, all of a user's, those of a
// user's device, or all of a homeserver's.
type revoked struct {
	homeserver string
	session    caveat.SessionID
	all        bool
	user       string           // with session: its user; not with all
	device     string           // with session: its device; otherwise the sessions of this device of the user
	except     caveat.SessionID // of the user's or the device's; zero: none
	devices    bool             // of the user's: only those that have a device
	before     int64            // Unix ms; without a session: those that were minted before
	at         int64            // Unix ms
	restored   int64            // Unix ms; when it was published again for a store that had lost it; 0: never
	soft       bool
	cause      revocation.Cause
}

// feedSlack is how much longer an event is kept than discharges should live: a
// request that began before the revocation may still be on its way.
const feedSlack = time.Minute

// until is when no discharge that the event is about can be alive any more.
func (a Announcer) until(e *revoked) time.Time {
	lives := orDefault(a.MaxTTL, defaultMaxTTL) + orDefault(a.Skew, defaultSkew)
	return time.UnixMilli(max(e.at, e.restored)).Add(lives + feedSlack)
}

// Kinds of ends in events.
const (
	kindHard = "hard"
	kindSoft = "soft"
)

// write writes an event as package api reads it. What that could not read is an
// error here: a homeserver would never get past it. A name that JSON cannot
// hold is left out of a session's event, which needs none.
func (a Announcer) write(e *revoked) (store.FeedEvent, error) {
	until := a.until(e)
	b := append(make([]byte, 0, 240), `{"v":1`...)
	one := e.session != caveat.SessionID{}
	switch {
	case one:
		b = append(append(b, `,"session":"`...), e.session.String()...)
		b = append(b, '"')
	case e.all:
		b = append(b, `,"all":true`...)
	case e.user == "" || len(e.user) > caveat.MaxUser:
		return store.FeedEvent{}, fmt.Errorf("write event: name of user has %d bytes", len(e.user))
	}
	for _, m := range []struct{ name, value string }{{`,"user":`, e.user}, {`,"device":`, e.device}} {
		if m.value == "" || e.all {
			continue
		}
		with, err := jsontext.AppendQuote(append(bytes.Clone(b), m.name...), m.value)
		switch {
		case err == nil:
			b = with
		case !one:
			return store.FeedEvent{}, fmt.Errorf("write event: %w", err)
		}
	}
	if e.except != (caveat.SessionID{}) {
		b = append(append(b, `,"except":"`...), e.except.String()...)
		b = append(b, '"')
	}
	if e.devices {
		b = append(b, `,"devices":true`...)
	}
	if !one {
		b = strconv.AppendInt(append(b, `,"before":`...), e.before, 10)
	}
	kind := kindHard
	if e.soft {
		kind = kindSoft
	}
	b = append(append(append(b, `,"kind":"`...), kind...), '"')
	b = strconv.AppendInt(append(b, `,"at":`...), e.at, 10)
	b = strconv.AppendInt(append(b, `,"until":`...), until.UnixMilli(), 10)
	b = append(append(append(b, `,"reason":"`...), e.cause...), `"}`...)
	return store.FeedEvent{Data: b, Until: until}, nil
}

func (s *Service) events(all []revoked) ([]store.FeedEvent, error) {
	if len(all) == 0 {
		return nil, nil
	}
	out := make([]store.FeedEvent, len(all))
	for i := range all {
		var err error
		if out[i], err = s.announcer.write(&all[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// revokedUser is the event of a user's revocation record.
func revokedUser(user store.UserKey, r session.GenerationRecord) revoked {
	end := revocation.End{Cause: revocation.CauseRevoked}
	if r.Generation > 0 {
		end = r.EndAbove(r.Generation - 1)
	}
	return revoked{
		homeserver: user.Homeserver, user: user.User, except: r.Except, devices: r.Devices, before: r.At + 1, at: r.At,
		soft: end.Soft, cause: end.Cause,
	}
}

// revokedSession is the event of a session that became the tombstone r.
func revokedSession(user store.UserKey, id caveat.SessionID, r *session.Record) revoked {
	return revoked{
		homeserver: user.Homeserver, session: id, user: user.User, device: r.Device, at: r.End.At, soft: r.End.Soft, cause: r.End.Cause,
	}
}

// revokedDevice is the event of the revocation of a device.
func revokedDevice(user store.UserKey, device string, d *session.DeviceRecord) revoked {
	return revoked{
		homeserver: user.Homeserver, user: user.User, device: device, except: d.Except, before: d.Revoked + 1, at: d.Revoked,
		soft: d.End.Soft, cause: d.End.Cause,
	}
}

// again returns the event of a session that was found to be over: the process
// that ended it may have died before its event was published. A homeserver's
// revocation is published together with its record, and a session without a
// record has no discharges.
func (s *Service) again(a *attempt, st session.State) []revoked {
	var e revoked
	switch r := st.Session; {
	case r == nil && st.User.At > 0 && a.cond.Minted <= st.User.At,
		r != nil && !r.Over() && r.UserGeneration < st.User.Generation:
		e = revokedUser(a.user, st.User)
	case r != nil && r.Over():
		e = revokedSession(a.user, a.cond.Session, r)
	default:
		return nil
	}
	switch {
	case a.event.Kind == session.EventDischarge || a.event.Kind == session.EventOwn:
		e.cause = revocation.CauseAgain
	case a.event.Kind == session.EventLogoutAll && e.cause == revocation.CauseRevoked:
		e.cause = revocation.CauseLogout
	}
	return s.unannounced(e, a.now)
}

// unannounced leaves out what this process has announced, and what is too long
// ago for any discharge to be alive.
func (s *Service) unannounced(e revoked, now time.Time) []revoked {
	if _, known := s.announced.Get(e.key()); known || !now.Before(s.announcer.until(&e)) {
		return nil
	}
	return []revoked{e}
}

// published remembers what has been published.
func (s *Service) published(all []revoked) {
	for i := range all {
		s.announced.Put(all[i].key(), struct{}{})
	}
}

// announce publishes what no write did.
func (s *Service) announce(ctx context.Context, homeserver string, all []revoked) error {
	if len(all) == 0 {
		return nil
	}
	events, err := s.events(all)
	if err == nil {
		err = s.cfg.Store.Publish(ctx, homeserver, events...)
	}
	if err != nil {
		return unavailable(fmt.Errorf("publish revocation: %w", err))
	}
	s.published(all)
	return nil
}

// announcement names a fact: which session, or which revocation of a user.
type announcement struct {
	homeserver, user, device string
	session                  caveat.SessionID
	before                   int64
}

// announcedBytes is the memory for what this process has published, so that a
// repeated logout fills no feed. What is forgotten is published once more.
const announcedBytes = 8 << 20

func newAnnounced() (*cache.Cache[announcement, struct{}], error) {
	return cache.New(cache.Config[announcement, struct{}]{
		Bytes: announcedBytes,
		Size:  func(k announcement, _ struct{}) int { return len(k.user) + len(k.device) },
	})
}

func (e *revoked) key() announcement {
	k := announcement{homeserver: e.homeserver, session: e.session, before: e.before}
	if e.session == (caveat.SessionID{}) {
		k.user, k.device = e.user, e.device
	}
	return k
}
