package discharger

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/caveat"
)

// cause says in an event why something was revoked. The words are part of the
// wire contract.
type cause string

const (
	causeLogout  cause = "logout"  // the client, or another of its user's
	causeReuse   cause = "reuse"   // two parties held one refresh token
	causePolicy  cause = "policy"  // a policy decided so
	causeLimit   cause = "limit"   // a policy allows only so many sessions
	causeRevoked cause = "revoked" // the homeserver ordered it
	causeAgain   cause = "again"   // it had ended before: somebody came back to it, or a store had lost it
)

// revoked is what an event says. It is about one session, all of a user's, or
// all of a homeserver's.
type revoked struct {
	homeserver string
	session    caveat.SessionID
	all        bool
	user       string           // without the two above
	except     caveat.SessionID // of the user's; zero: none
	before     int64            // Unix ms; without a session: those that were minted before
	at         int64            // Unix ms
	restored   int64            // Unix ms; when a store that had lost it was given it again; 0: never
	cause      cause

	owner  string // with session: whose it was
	device string // with owner, where it is known
}

// feedSlack is how much longer an event is kept than discharges should live: a
// request that began before the revocation may still be on its way.
const feedSlack = time.Minute

// until is when no discharge that the event is about can be alive any more.
func (a Announcer) until(e *revoked) time.Time {
	lives := orDefault(a.MaxTTL, defaultMaxTTL) + orDefault(a.Skew, defaultSkew)
	return time.UnixMilli(max(e.at, e.restored)).Add(lives + feedSlack)
}

// maxUser is the greatest length of a user's name, in bytes, as in a condition.
const maxUser = 255

// write writes an event as package api reads it. What that could not read is an
// error here: a homeserver would never get past it.
func (a Announcer) write(e *revoked) (FeedEvent, error) {
	until := a.until(e)
	b := append(make([]byte, 0, 160), `{"v":1`...)
	switch {
	case e.session != (caveat.SessionID{}):
		b = append(append(b, `,"session":"`...), e.session.String()...)
		b = append(b, '"')
	case e.all:
		b = append(b, `,"all":true`...)
	case e.user == "" || len(e.user) > maxUser:
		return FeedEvent{}, fmt.Errorf("write event: name of user has %d bytes", len(e.user))
	default:
		var err error
		if b, err = jsontext.AppendQuote(append(b, `,"user":`...), e.user); err != nil {
			return FeedEvent{}, fmt.Errorf("write event: %w", err)
		}
		if e.except != (caveat.SessionID{}) {
			b = append(append(b, `,"except":"`...), e.except.String()...)
			b = append(b, '"')
		}
	}
	if e.session == (caveat.SessionID{}) {
		b = strconv.AppendInt(append(b, `,"before":`...), e.before, 10)
	}
	b = strconv.AppendInt(append(b, `,"at":`...), e.at, 10)
	b = strconv.AppendInt(append(b, `,"until":`...), until.UnixMilli(), 10)
	b = append(append(append(b, `,"reason":"`...), e.cause...), `"}`...)
	if a.Named[e.homeserver] {
		b = appendOwner(b, e)
	}
	return FeedEvent{Data: b, Until: until}, nil
}

func (s *Service) events(all []revoked) ([]FeedEvent, error) {
	if len(all) == 0 {
		return nil, nil
	}
	out := make([]FeedEvent, len(all))
	for i := range all {
		var err error
		if out[i], err = s.announcer.write(&all[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// revokedUser is the event of a user's revocation record.
func revokedUser(user UserKey, r Revocation, c cause) revoked {
	return revoked{homeserver: user.Homeserver, user: user.User, except: r.Except, before: r.At + 1, at: r.At, cause: c}
}

// again says what has to be announced of a session that was found to be over:
// whoever ended it may have died before its event was out. A homeserver's
// revocation is published together with its record, and a session without a
// record has no discharges.
func (s *Service) again(a *attempt, st State, c cause) []revoked {
	var e revoked
	switch r := st.Session; {
	case r == nil && st.User.At > 0 && a.cond.Minted <= st.User.At,
		r != nil && r.Ended == 0 && r.UserGeneration < st.User.Generation:
		e = revokedUser(a.user, st.User, c)
	case r != nil && r.Ended > 0:
		e = a.revoked(a.cond.Session, c)
		e.at = r.Ended
	default:
		return nil
	}
	return s.unannounced(e, a.now)
}

// unannounced leaves out what this process has announced, and what is too long
// ago for any discharge to be alive.
func (s *Service) unannounced(e revoked, now time.Time) []revoked {
	if !now.Before(s.announcer.until(&e)) || s.announced.has(e.key()) {
		return nil
	}
	return []revoked{e}
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
	s.announced.add(all)
	return nil
}

// announcements remembers what this process has published, so that somebody
// who repeats his own logout fills no feed. It is bounded, and forgets in two
// steps. What it has forgotten is published once more.
type announcements struct {
	mu         sync.Mutex
	young, old map[announcement]struct{}
}

// announcement names a fact: which session, or which revocation of a user.
type announcement struct {
	homeserver, user string
	session          caveat.SessionID
	before           int64
}

// maxAnnouncements is the size of either half. An entry takes about 150 bytes.
const maxAnnouncements = 1 << 14

func (e *revoked) key() announcement {
	return announcement{homeserver: e.homeserver, user: e.user, session: e.session, before: e.before}
}

func (m *announcements) has(k announcement) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, young := m.young[k]
	_, old := m.old[k]
	return young || old
}

func (m *announcements) add(all []revoked) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range all {
		if m.young == nil || len(m.young) >= maxAnnouncements {
			m.old, m.young = m.young, make(map[announcement]struct{})
		}
		m.young[all[i].key()] = struct{}{}
	}
}
