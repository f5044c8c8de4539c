package policy

import (
	"context"
	"fmt"
	"time"
)

// Action is the request of the client.
type Action string

// The actions. Logout is not among them: no policy can refuse it.
const (
	ActionActivate Action = "activate" // first discharge of a session
	ActionRefresh  Action = "refresh"  // later discharge
)

// Replay is the relation of the presented refresh token to the session's
// history. Each kind but ReplayNone means that a token, or the caveat
// at activation, was presented more than once.
type Replay string

// The kinds of replay. The core has refused the discharge if it is fork, stale or reuse;
// [Grant.Revokes] reports whether it would also end the session.
const (
	ReplayNone  Replay = "none"  // the expected token
	ReplayRetry Replay = "retry" // the confirmed token again, its successor unused: the reply was lost
	ReplayFork  Replay = "fork"  // a replaced successor: two parties refreshed from one token
	ReplayStale Replay = "stale" // the token superseded last: two tabs raced
	ReplayReuse Replay = "reuse" // an older token: it was copied
)

// Input is a request as policies see it. Strings are bounded
// (names and devices 255 bytes, clients 256, labels as in the condition), which bounds
// the cost of evaluating them.
type Input struct {
	Now        time.Time  `json:"now"` // time of the request, UTC; read once
	Action     Action     `json:"action"`
	Policy     string     `json:"policy"` // name of the policy: from the condition, else of the homeserver
	Replay     Replay     `json:"replay"`
	Homeserver Homeserver `json:"homeserver"`
	User       User       `json:"user"`
	Session    Session    `json:"session"`
	Request    Request    `json:"request"`
	Grant      Grant      `json:"grant"` // the proposal of the core

	// Counter counts User.Sessions at the first read; nil: they stay unknown.
	Counter SessionCounter `json:"-"`
}

// A SessionCounter returns the number of live sessions of a user, without the session
// of the input. It reads all of them from the store.
type SessionCounter interface {
	LiveSessions(ctx context.Context) (int, error)
}

// CountSessions returns User.Sessions and counts them at the first call. It
// returns -1 without a Counter. Not safe for concurrent use.
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

// Homeserver is the homeserver that minted the access macaroon, identified by
// the key that sealed its caveat.
type Homeserver struct {
	Name       string `json:"name"`       // as configured
	Generation uint64 `json:"generation"` // number of revocations of all its sessions
}

// User is the owner of the session.
type User struct {
	ID         string `json:"id"`         // from the homeserver, for instance @alice:example.org
	Generation uint64 `json:"generation"` // number of revocations of all the user's sessions
	Sessions   int    `json:"sessions"`   // live sessions without this one; -1: not counted, see Input.CountSessions
}

// Session is the session before this request. At activation Created and LastUsed are Now,
// and the first and last client are those of the request.
type Session struct {
	ID          string            `json:"id"`               // 22 characters base64url
	Device      string            `json:"device"`           // from the homeserver; may be empty
	Mode        string            `json:"mode"`             // open, rotate or held
	Minted      time.Time         `json:"minted"`           // when the access macaroon was minted, by the homeserver's clock
	Created     time.Time         `json:"created"`          // first discharge
	LastUsed    time.Time         `json:"last_used"`        // last discharge; in modes open and held up to an hour early
	Expires     time.Time         `json:"expires,omitzero"` // end of its absolute lifetime; zero: none
	Epoch       uint64            `json:"epoch"`            // confirmed refreshes, mode rotate only
	FirstIP     string            `json:"first_ip"`         // canonical text; "": unknown
	LastIP      string            `json:"last_ip"`          // of the last discharge
	FirstClient string            `json:"first_client"`     // Request.Client of the first discharge
	LastClient  string            `json:"last_client"`      // of the last discharge
	Labels      map[string]string `json:"labels"`           // of the condition, overlaid with those stored by policies
}

// Request is the party of the request.
type Request struct {
	IP         string `json:"ip"`         // canonical text, from trusted proxies, or from the homeserver in mode held
	Client     string `json:"client"`     // program and platform without versions: Firefox on Linux
	UserAgent  string `json:"user_agent"` // the User-Agent header, at most 256 bytes
	Homeserver bool   `json:"homeserver"` // made by the homeserver with its API key
}

// Grant is the proposal of the core: the answer if the policy allows.
type Grant struct {
	TTL     time.Duration `json:"ttl"`     // proposed lifetime of the discharge; 0 when the core refuses
	MaxTTL  time.Duration `json:"max_ttl"` // longest lifetime; a longer TTL of a decision is cut to it
	Revokes bool          `json:"revokes"` // the core would end the session (theft suspected)
}

// SampleInput returns the input that tests in rule files modify: Alice refreshes a
// session of ten days from its only address, at noon on a Monday.
func SampleInput() *Input {
	return Sample(time.Date(2026, time.March, 2, 12, 0, 0, 0, time.UTC), ActionRefresh)
}

// Sample returns the sample input at another time, or for an activation, with a session
// without history.
func Sample(now time.Time, action Action) *Input {
	const addr, client, agent = "192.0.2.1", "Example on Android", "Example/1.0 (Phone; Android 15)"
	in := &Input{
		Now: now, Action: action, Policy: DefaultName, Replay: ReplayNone,
		Homeserver: Homeserver{Name: "example.org"},
		User:       User{ID: "@alice:example.org", Sessions: 2},
		Session: Session{
			ID: "AAAAAAAAAAAAAAAAAAAAAA", Device: "JLAFKJWSCS", Mode: "rotate",
			Minted: now.Add(-10 * 24 * time.Hour), Created: now.Add(-10 * 24 * time.Hour), LastUsed: now.Add(-5 * time.Minute),
			Epoch: 1000, FirstIP: addr, LastIP: addr, FirstClient: client, LastClient: client,
			Labels: map[string]string{},
		},
		Request: Request{IP: addr, Client: client, UserAgent: agent},
		Grant:   Grant{TTL: 5 * time.Minute, MaxTTL: time.Hour},
	}
	if action == ActionActivate {
		in.Session.Minted, in.Session.Created, in.Session.LastUsed, in.Session.Epoch = now, now, now, 0
	}
	return in
}
