package wire

import (
	"net/netip"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// SessionInfo is a live session. A homeserver reads all of it. A user reads neither
// policy nor labels nor epochs, and of the current session not its last use, which
// would show the holder of a copied token when the owner refreshes.
type SessionInfo struct {
	ID          caveat.SessionID  `json:"id"`
	Current     bool              `json:"current,omitempty"` // to a user: the session of the request
	Device      string            `json:"device"`
	Mode        string            `json:"mode"` // open, rotate or held
	Policy      string            `json:"policy,omitempty"`
	Created     time.Time         `json:"created"`            // first discharge
	LastUsed    time.Time         `json:"last_used,omitzero"` // in modes open and held up to an hour old
	FirstIP     netip.Addr        `json:"first_ip"`           // "" if unknown
	LastIP      netip.Addr        `json:"last_ip,omitzero"`
	FirstClient string            `json:"first_client"` // program and platform, for instance "Firefox on Linux"
	LastClient  string            `json:"last_client,omitempty"`
	Epoch       uint64            `json:"epoch,omitempty"` // mode rotate only
	Labels      map[string]string `json:"labels,omitempty"`
}

// SessionsResponse is the answer to PathUserSessions, the most recently used session
// first, and to PathOwnSessions, the newest first.
type SessionsResponse struct {
	Sessions []SessionInfo `json:"sessions"`
}

// EndedSession is a session with a tombstone.
type EndedSession struct {
	ID     caveat.SessionID `json:"id"`
	Device string           `json:"device"` // "" if none or unknown
	Kind   string           `json:"kind"`   // KindHard or KindSoft
	Reason string           `json:"reason"` // as in the feed of revocations
	At     time.Time        `json:"at"`
}

// EndedResponse is the answer to PathUserSessions with ParamEnded, the latest end first.
type EndedResponse struct {
	Ended []EndedSession `json:"ended"`
}

// Kinds of ends.
const (
	KindHard = "hard" // the client discards its encryption keys
	KindSoft = "soft" // the client logs in again and keeps them
)

// Mark is the answer to PathMarks: the times until which sessions without a record are
// revoked, by the clock of the store. A mark after Now comes from a wrong clock, and
// logins are undecided until then.
type Mark struct {
	User       time.Time `json:"user,omitzero"`       // of the user in ParamUser
	Device     time.Time `json:"device,omitzero"`     // latest of the user's devices
	Homeserver time.Time `json:"homeserver,omitzero"` // of the homeserver
	Now        time.Time `json:"now"`
}

// Lifted is the answer to DELETE on PathMarks.
type Lifted struct {
	Lifted int `json:"lifted"` // number of marks that were in the future
}

// Seen is an epoch of a session whose discharge is in use, so that the refresh token
// issued with it has arrived.
type Seen struct {
	User    string           `json:"user"`
	Session caveat.SessionID `json:"session"`
	Epoch   uint64           `json:"epoch"`
}

// SeenRequest is the JSON body of PathSeen. Sessions and epochs that are over are
// ignored. A failed request may have applied a part, and may be repeated.
type SeenRequest struct {
	Seen []Seen `json:"seen"` // up to MaxSeen
}

// MaxSeen is the greatest number of entries in a SeenRequest.
const MaxSeen = 1000
