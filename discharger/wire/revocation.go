package wire

import (
	"errors"
	"fmt"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/discharger/discharger/discharger/caveat"
)

// The names of server-sent events on PathRevocations. Readers ignore names that
// they do not know. Lines that begin with a colon come at the heartbeat's rate
// while there is nothing else, so that silence means that the line is dead.
const (
	EventRevocation = "revocation" // data: a Revocation; id: where to resume
	EventGap        = "gap"        // events may be missing; all that are retained follow
	EventCurrent    = "current"    // all retained events were sent; data: a FeedState
)

// Revocation is the data of an EventRevocation: the sessions whose discharges
// are refused from now on. It names one session, those of a user's device, all
// of a user's, or all of the homeserver's:
//
//	{"v":1,"session":"…","user":"…","device":"…","kind":"soft","at":…,"until":…,"reason":"replaced"}
//	{"v":1,"user":"…","device":"…","before":…,"kind":"hard","at":…,"until":…,"reason":"revoked"}
//	{"v":1,"user":"…","except":"…","before":…,"kind":"hard","at":…,"until":…,"reason":"revoked"}
//	{"v":1,"all":true,"before":…,"kind":"hard","at":…,"until":…,"reason":"revoked"}
//
// Times are Unix milliseconds. An event may come twice, late, or in another
// order: each repeats a fact. Readers ignore members that they do not know.
type Revocation struct {
	Session caveat.SessionID // this session; zero: one of the others
	User    string           // the sessions of this user; with Session: its user, "" if it is not known
	Device  string           // the sessions of this device of User; with Session: its device, "" if there is none or it is not known
	All     bool             // the sessions of the homeserver

	Except  caveat.SessionID // of User or Device: a session that is not meant; zero: none
	Devices bool             // of User: sessions that have no device are not meant
	Before  time.Time        // without Session: only those minted before this are meant

	// Soft is the kind of end: the clients log in again and keep their
	// encryption keys. It is false in events of services that name no kind, and
	// true if the kind is a word that came later.
	Soft bool

	At    time.Time // when it was revoked
	Until time.Time // from here on no discharge of the sessions is alive, and the event can be forgotten

	Reason string // one of the Revoked constants, or a word that came later
}

// The reasons of revocations.
const (
	RevokedLogout   = "logout"   // by the client, or by another client of its user
	RevokedReuse    = "reuse"    // two parties held one refresh token
	RevokedPolicy   = "policy"   // a policy decided so
	RevokedLimit    = "limit"    // a policy allows only so many sessions
	RevokedOrder    = "revoked"  // by the homeserver or an operator
	RevokedExpired  = "expired"  // idle or absolute lifetime, or the time in the condition
	RevokedReplaced = "replaced" // a newer login on the same device
	RevokedLost     = "lost"     // the store lost its data
	RevokedEarlier  = "again"    // published again: the revocation is older than the event
)

// wireRevocation is a Revocation in JSON.
type wireRevocation struct {
	V       int               `json:"v"`
	Session *caveat.SessionID `json:"session,omitempty"`
	User    string            `json:"user,omitempty"`
	Device  string            `json:"device,omitempty"`
	Except  *caveat.SessionID `json:"except,omitempty"`
	Devices bool              `json:"devices,omitzero"`
	All     bool              `json:"all,omitzero"`
	Before  int64             `json:"before,omitzero"`
	Kind    string            `json:"kind,omitempty"`
	At      int64             `json:"at"`
	Until   int64             `json:"until"`
	Reason  string            `json:"reason"`
}

const revocationVersion = 1

// MarshalJSON writes the form above.
func (r Revocation) MarshalJSON() ([]byte, error) {
	w := wireRevocation{
		V: revocationVersion, User: r.User, Device: r.Device, Devices: r.Devices, All: r.All, Kind: KindHard,
		At: r.At.UnixMilli(), Until: r.Until.UnixMilli(), Reason: r.Reason,
	}
	if r.Soft {
		w.Kind = KindSoft
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

// UnmarshalJSON reads the form above and ignores members that are not known.
// Members that contradict each other, and another version, are errors. On
// error, r is zero.
func (r *Revocation) UnmarshalJSON(data []byte) error {
	*r = Revocation{}
	var w wireRevocation
	if err := jsonv2.Unmarshal(data, &w); err != nil {
		return errors.New("read revocation: malformed JSON")
	}
	if err := w.check(); err != nil {
		return fmt.Errorf("read revocation: %w", err)
	}
	*r = Revocation{
		User: w.User, Device: w.Device, Devices: w.Devices, All: w.All, Soft: w.Kind != "" && w.Kind != KindHard,
		At: utcMilli(w.At), Until: utcMilli(w.Until), Reason: w.Reason,
	}
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

// maxEventWord bounds reason and kind, in bytes.
const maxEventWord = 64

// check refuses an event without a subject, and one that contradicts itself.
func (w *wireRevocation) check() error {
	session, user := w.Session != nil, w.User != ""
	switch {
	case w.V != revocationVersion:
		return fmt.Errorf("version %d is unknown", w.V)
	case w.All && (session || user || w.Device != ""), !session && !user && !w.All:
		return errors.New("want exactly one of session, user, all")
	case session && *w.Session == caveat.SessionID{}, w.Except != nil && *w.Except == caveat.SessionID{}:
		return errors.New("session is all zeros")
	case w.Except != nil && (session || !user):
		return errors.New("except without user")
	case w.Devices && (session || !user || w.Device != ""):
		return errors.New("devices without user")
	case session != (w.Before == 0):
		return errors.New("want before exactly without session")
	case !plausible(w.At), !plausible(w.Until), !session && !plausible(w.Before):
		return errors.New("time is out of range")
	case w.Reason == "", len(w.Reason) > maxEventWord, len(w.Kind) > maxEventWord:
		return errors.New("reason is missing, or reason or kind is too long")
	case len(w.User) > caveat.MaxUser, caveat.CheckDevice(w.Device) != nil:
		return errors.New("user or device is too long")
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
