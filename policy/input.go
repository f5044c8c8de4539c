package policy

import (
	"context"
	"fmt"
	"time"
)

// Action is the request of the client.
type Action string

// The actions. Logout is never refused by a policy, so it is none of them.
const (
	ActionActivate Action = "activate" // the session's first discharge
	ActionRefresh  Action = "refresh"  // any later one
)

// Replay is how the presented refresh token relates to the session's
// history. Everything but ReplayNone means that a token, or the bare caveat
// at activation, was presented more than once.
type Replay string

// The kinds of replay. For fork, stale and reuse the core has already refused
// the discharge; [Grant.Revokes] reports whether it would also end the session.
const (
	ReplayNone  Replay = "none"  // the token expected next
	ReplayRetry Replay = "retry" // the confirmed token again, its successor unused: a lost reply
	ReplayFork  Replay = "fork"  // a successor that was replaced: two parties refreshed from one token
	ReplayStale Replay = "stale" // the token just superseded: two tabs racing
	ReplayReuse Replay = "reuse" // a token older than that: there is a copy
)

// Input is all that a policy may know about a request. Strings are bounded
// (names and devices 255 bytes, clients 256, labels as in the condition), so
// the cost of looking at them is too.
type Input struct {
	Now        time.Time  `json:"now"`        // one reading of the service's clock for the whole request, UTC
	Action     Action     `json:"action"`     //
	Policy     string     `json:"policy"`     // name of the policy that applies: the condition's, else the homeserver's
	Replay     Replay     `json:"replay"`     //
	Homeserver Homeserver `json:"homeserver"` //
	User       User       `json:"user"`       //
	Session    Session    `json:"session"`    //
	Request    Request    `json:"request"`    //
	Grant      Grant      `json:"grant"`      // the proposal of the core

	// Counter counts User.Sessions when they are first read; nil: they cannot
	// be counted.
	Counter SessionCounter `json:"-"`
}

// A SessionCounter counts the live sessions of a user, without the session that
// an input is about. Counting reads all of them from the store.
type SessionCounter interface {
	LiveSessions(ctx context.Context) (int, error)
}

// CountSessions returns User.Sessions, and counts them if that was not done. It
// returns -1 if they cannot be counted. Not safe for concurrent use.
func (in *Input) CountSessions(ctx context.Context) (int, error) {
	if in.User.Sessions < 0 && in.Counter != nil {
		n, err := in.Counter.LiveSessions(ctx)
		if err != nil {
			return -1, fmt.Errorf("count sessions: %w", err)
		}
		in.User.Sessions = n
	}
	return in.User.Sessions, nil
}

// Homeserver is the homeserver that minted the access macaroon, known from
// the key that sealed its caveat.
type Homeserver struct {
	Name       string `json:"name"`       // as configured
	Generation uint64 `json:"generation"` // times that all of its sessions were revoked at once
}

// User is the user that the session belongs to.
type User struct {
	ID         string `json:"id"`         // as the homeserver names it, for instance @alice:example.org
	Generation uint64 `json:"generation"` // times that all of this user's sessions were revoked at once
	Sessions   int    `json:"sessions"`   // live sessions before this one; -1: not counted, see Input.CountSessions
}

// Session is the session as it stood before this request. At activation it
// has no history: Created and LastUsed are Now, and the first and last client
// are the requesting one.
type Session struct {
	ID          string            `json:"id"`               // 22 characters base64url
	Device      string            `json:"device"`           // as the homeserver names it, may be empty
	Mode        string            `json:"mode"`             // open, rotate or held
	Minted      time.Time         `json:"minted"`           // when the access macaroon was made, by the homeserver's clock
	Created     time.Time         `json:"created"`          // first discharge
	LastUsed    time.Time         `json:"last_used"`        // last discharge; in modes open and held up to an hour older than the truth
	Expires     time.Time         `json:"expires,omitzero"` // end of its absolute lifetime; zero: none
	Epoch       uint64            `json:"epoch"`            // confirmed refreshes, mode rotate only
	FirstIP     string            `json:"first_ip"`         // canonical text, "" when unknown
	LastIP      string            `json:"last_ip"`          //
	FirstClient string            `json:"first_client"`     // as Request.Client, of the first discharge
	LastClient  string            `json:"last_client"`      // of the last one
	Labels      map[string]string `json:"labels"`           // the condition's, overlaid with those a policy stored
}

// Request is the party that made the request.
type Request struct {
	IP         string `json:"ip"`         // canonical text; through trusted proxies, or as the homeserver reports it in mode held
	Client     string `json:"client"`     // name of the program and its platform, without versions: Firefox on Linux
	UserAgent  string `json:"user_agent"` // the User-Agent itself, at most 256 bytes
	Homeserver bool   `json:"homeserver"` // made by the homeserver itself, with its API key
}

// Grant is the proposal of the core: its answer if the policy allows.
type Grant struct {
	TTL     time.Duration `json:"ttl"`     // proposed lifetime of the discharge; 0 when the core refuses
	MaxTTL  time.Duration `json:"max_ttl"` // the longest it could be: a decision beyond it is cut to it
	Revokes bool          `json:"revokes"` // the core would end the session (theft suspected)
}
