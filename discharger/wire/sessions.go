package wire

import (
	"net/netip"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// SessionInfo is a live session, as its homeserver or its user sees it. A user
// sees neither policy nor labels nor epochs, and of the session that asks not
// when, from where and by which client it was used last: that would show the
// holder of a copied token when its owner refreshes.
type SessionInfo struct {
	ID          caveat.SessionID  `json:"id"`
	Current     bool              `json:"current,omitempty"` // to a user: the session that asks
	Device      string            `json:"device"`
	Mode        string            `json:"mode"` // open, rotate or held
	Policy      string            `json:"policy,omitempty"`
	Created     time.Time         `json:"created"`            // first discharge
	LastUsed    time.Time         `json:"last_used,omitzero"` // in modes open and held up to an hour older than the truth
	FirstIP     netip.Addr        `json:"first_ip"`           // "" when unknown
	LastIP      netip.Addr        `json:"last_ip,omitzero"`
	FirstClient string            `json:"first_client"` // program and platform, for instance "Firefox on Linux"
	LastClient  string            `json:"last_client,omitempty"`
	Epoch       uint64            `json:"epoch,omitempty"` // mode rotate only
	Labels      map[string]string `json:"labels,omitempty"`
}

// SessionsResponse is the body of PathUserSessions, the most recently used
// session first, and of PathOwnSessions, the newest session first.
type SessionsResponse struct {
	Sessions []SessionInfo `json:"sessions"`
}

// EndedSession is a session that ended and is remembered.
type EndedSession struct {
	ID     caveat.SessionID `json:"id"`
	Device string           `json:"device"` // "" if it had none, or it is not known
	Kind   string           `json:"kind"`   // KindHard or KindSoft
	Reason string           `json:"reason"` // one of the Revoked constants, or a word that came later
	At     time.Time        `json:"at"`
}

// EndedResponse is the body of PathUserSessions with the parameter ended, the
// latest end first.
type EndedResponse struct {
	Ended []EndedSession `json:"ended"`
}

// Kinds of ends.
const (
	KindHard = "hard" // the client discards its encryption keys
	KindSoft = "soft" // the client logs in again and keeps them
)

// Mark is the body of PathMarks: until when sessions without a record are
// revoked, by the store's clock. A mark after Now was made by a clock that was
// wrong, and keeps logins undecided until then.
type Mark struct {
	User       time.Time `json:"user,omitzero"`       // of the user, if one was asked for
	Device     time.Time `json:"device,omitzero"`     // the latest of the user's devices
	Homeserver time.Time `json:"homeserver,omitzero"` // of the homeserver
	Now        time.Time `json:"now"`                 // the store's time
}

// Lifted is the body of an answer to DELETE on PathMarks.
type Lifted struct {
	Lifted int `json:"lifted"` // marks that were in the future
}

// Seen says that a homeserver saw a discharge of this epoch in use, so that
// the refresh token that came with it has arrived.
type Seen struct {
	User    string           `json:"user"`
	Session caveat.SessionID `json:"session"`
	Epoch   uint64           `json:"epoch"`
}

// SeenRequest is the JSON body of PathSeen. Reports about sessions or epochs
// that are gone are ignored. It is not all or nothing, but may be repeated.
type SeenRequest struct {
	Seen []Seen `json:"seen"` // up to MaxSeen
}

// MaxSeen is the greatest number of reports in a SeenRequest.
const MaxSeen = 1000
