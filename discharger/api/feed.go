package api

import (
	"errors"
	"fmt"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/discharger/discharger/discharger/caveat"
)

// The names of server-sent events on PathRevocations. A reader leaves out those
// that it does not know. Lines that begin with a colon come every now and then
// while there is nothing to say, so that silence means that the line is dead.
const (
	EventRevocation = "revocation" // data: a Revocation; id: where to resume
	EventGap        = "gap"        // events may be missing; all that are retained follow
	EventCurrent    = "current"    // all that is retained has been said; data: a FeedState
)

// ContentTypeEvents is the Content-Type of PathRevocations.
const ContentTypeEvents = "text/event-stream"

// Revocation is the data of an EventRevocation: it names sessions of which no
// discharge is to be accepted any more, from now on and for ever. It is about
// one session, about all of a user's, or about all of the homeserver's:
//
//	{"v":1,"session":"…","at":…,"until":…,"reason":"logout"}
//	{"v":1,"user":"…","before":…,"at":…,"until":…,"reason":"revoked"}
//	{"v":1,"user":"…","except":"…","before":…,"at":…,"until":…,"reason":"revoked"}
//	{"v":1,"all":true,"before":…,"at":…,"until":…,"reason":"revoked"}
//
// Times are Unix milliseconds. Each repeats a fact, so it does no harm if the
// same one comes twice, late, or in another order.
type Revocation struct {
	Session caveat.SessionID // this session; zero: one of the two below
	User    string           // the sessions of this user
	All     bool             // the sessions of the homeserver

	Except caveat.SessionID // with User: a session that is not meant; zero: none
	Before time.Time        // with User or All: only those minted before this are meant

	At    time.Time // when it was revoked
	Until time.Time // from here on no discharge of them can be alive, and this can be forgotten

	Reason string // one of the Revoked constants, or a word that came later
}

// Why something was revoked.
const (
	RevokedLogout  = "logout"  // its client logged out, or another of the user's did it
	RevokedReuse   = "reuse"   // two parties held one refresh token
	RevokedPolicy  = "policy"  // a policy decided so
	RevokedLimit   = "limit"   // a policy allows only so many sessions
	RevokedOrder   = "revoked" // the homeserver ordered it
	RevokedEarlier = "again"   // it had ended before: somebody came back to it, or a store had lost it
)

// wireRevocation is a Revocation in JSON.
type wireRevocation struct {
	V       int               `json:"v"`
	Session *caveat.SessionID `json:"session,omitempty"`
	User    string            `json:"user,omitempty"`
	Except  *caveat.SessionID `json:"except,omitempty"`
	All     bool              `json:"all,omitzero"`
	Before  int64             `json:"before,omitzero"`
	At      int64             `json:"at"`
	Until   int64             `json:"until"`
	Reason  string            `json:"reason"`
}

const revocationVersion = 1

// MarshalJSON writes the form above.
func (r Revocation) MarshalJSON() ([]byte, error) {
	w := wireRevocation{
		V: revocationVersion, User: r.User, All: r.All, At: r.At.UnixMilli(), Until: r.Until.UnixMilli(), Reason: r.Reason,
	}
	if r.Session != (caveat.SessionID{}) {
		w.Session = &r.Session
	}
	if r.Except != (caveat.SessionID{}) {
		w.Except = &r.Except
	}
	if w.Session == nil {
		w.Before = r.Before.UnixMilli()
	}
	if err := w.check(); err != nil {
		return nil, fmt.Errorf("write revocation: %w", err)
	}
	return jsonv2.Marshal(w)
}

// UnmarshalJSON reads the form above and nothing else: what is not understood
// might be what matters. On error, r is zero.
func (r *Revocation) UnmarshalJSON(data []byte) error {
	*r = Revocation{}
	var w wireRevocation
	if err := jsonv2.Unmarshal(data, &w, jsonv2.RejectUnknownMembers(true)); err != nil {
		return errors.New("read revocation: it is not the JSON it should be")
	}
	if err := w.check(); err != nil {
		return fmt.Errorf("read revocation: %w", err)
	}
	*r = Revocation{User: w.User, All: w.All, At: utcMilli(w.At), Until: utcMilli(w.Until), Reason: w.Reason}
	if w.Session != nil {
		r.Session = *w.Session
		return nil
	}
	r.Before = utcMilli(w.Before)
	if w.Except != nil {
		r.Except = *w.Except
	}
	return nil
}

func utcMilli(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// check refuses what says nothing, or two things.
func (w *wireRevocation) check() error {
	session, user := w.Session != nil, w.User != ""
	switch {
	case w.V != revocationVersion:
		return fmt.Errorf("version %d is not known", w.V)
	case session && user, session && w.All, user && w.All, !session && !user && !w.All:
		return errors.New("it is not about one of session, user and all")
	case session && *w.Session == caveat.SessionID{}, w.Except != nil && *w.Except == caveat.SessionID{}:
		return errors.New("a session is all zeros")
	case w.Except != nil && !user:
		return errors.New("only a user's sessions can have an exception")
	case session != (w.Before == 0):
		return errors.New("before does not go with it")
	case !plausible(w.At), !plausible(w.Until), !session && !plausible(w.Before):
		return errors.New("a time is out of range")
	case w.Reason == "", len(w.Reason) > 64, len(w.User) > 255:
		return errors.New("reason or user is missing or too long")
	}
	return nil
}

// plausible reports whether a time in Unix milliseconds is after 1970 and
// before the year 5000.
func plausible(ms int64) bool { return ms > 0 && ms < 95_617_584_000_000 }

// FeedState is the data of an EventCurrent.
type FeedState struct {
	// Heartbeat is how often something comes, at least; in milliseconds.
	Heartbeat int64 `json:"heartbeat"`
}

// heartbeat reads a FeedState. Members that it does not know are for later.
func heartbeat(data []byte) (time.Duration, error) {
	var s FeedState
	if err := jsonv2.Unmarshal(data, &s); err != nil || s.Heartbeat <= 0 || s.Heartbeat > time.Hour.Milliseconds() {
		return 0, errors.New("the state of the feed is not what it should be")
	}
	return time.Duration(s.Heartbeat) * time.Millisecond, nil
}

// FeedKind says what a FeedEvent is.
type FeedKind uint8

// The kinds.
const (
	FeedRevocation FeedKind = iota + 1 // something was revoked
	FeedGap                            // events may be missing before the next
	FeedCurrent                        // the reader knows all there is
	FeedHeartbeat                      // nothing, but the line is alive
)

// FeedEvent is what [Client.FollowRevocations] reads.
type FeedEvent struct {
	Kind       FeedKind
	Position   string        // with FeedRevocation: where to resume
	Revocation Revocation    // with FeedRevocation
	Heartbeat  time.Duration // with FeedCurrent: something comes at least this often
}
