// Package policy decides, at every activation and every refresh, what a
// session may have: how long its discharge lives, which caveats it carries,
// or that it gets none.
//
// # Where a policy stands
//
// The core asks it after its own checks. Whatever the core has already
// refused stays refused, and what the core would grant is written in
// [Input.Grant]: a [Decision] can shorten it, attach conditions to it, or
// withhold it, and can never widen it. An [Evaluator] that returns an error,
// panics or runs out of time has decided nothing: the client is told to come
// back later, and neither gets a discharge nor loses its session.
//
// # Three ways to write one
//
// Operators write rules in YAML files, which [Load] turns into a [Set] and a
// [Reloader] keeps up to date. A rule may leave its decision to a webhook.
// Programs that embed the service implement [Evaluator], an interface of one
// method. [Allow] accepts what the core proposes, and some policies are built
// in, as rule files to copy: see [Builtin].
//
// # Rule files
//
// A file has any number of policies; a homeserver's configuration or a
// session's condition names the one that applies. A policy is a list of rules,
// each with a condition in CEL, the expression language that Kubernetes uses.
// The first rule whose condition holds decides, and otherwise decides where
// none does:
//
//	version: 1
//	networks:
//	  office: [203.0.113.0/24, "2001:db8:7::/48"]
//	policies:
//	  default:
//	    rules:
//	      - name: admins-at-the-office
//	        when: session.labels[?"role"].orValue("") == "admin" && !(request.ip in networks.office)
//	        then: {effect: deny, code: admin_network}
//	    otherwise: {effect: allow, ttl: 5m}
//	    tests:
//	      - name: an admin elsewhere
//	        input: {session: {labels: {role: admin}}}
//	        expect: deny
//
// Expressions see the fields of [Input] under their JSON names ([WriteFields]
// lists them), and the file's own lists. Beside the functions of CEL, its
// optional values, strings and network functions as Kubernetes has them, there
// are
//
//	addr in networks.office              and in cidr("10.0.0.0/8"), cidrs("10.0.0.0/8 192.0.2.7")
//	sameNetwork(addr, addr, 24, 48)      same first 24 bits of IPv4, or 48 of IPv6
//	now.during("Mon-Fri 08:00-18:00", "Europe/Berlin")
//	days(90)                             a duration of 90 times 24 hours
//
// Everything is checked when a file is loaded: the types of expressions, names
// and values that do not exist, rules that never run, what a decision costs at
// most, the caveats that homeservers know, and the file's own tests. [Check]
// lists all of it with places and suggestions.
//
// # What can go wrong
//
// Reading a field that has no value (an unknown address, a missing label) is
// an error and not a default, because either default would be the wrong one
// for some rule. So is a value that would not stay one word of the caveat it
// is filled into, a decision that costs more than it may, a webhook that does
// not answer, and a panic. All of them leave the request undecided.
//
// # Versions
//
// Input and Decision are version 1 of a contract that is kept outside this
// process too: in rule files, in webhook bodies and in audit logs. Fields are
// added, never renamed; their JSON names are part of the contract. In JSON a
// time is RFC 3339, and a duration a string such as "5m0s". [JSONSchema]
// describes all of it.
package policy

import (
	"context"
	"time"
)

// An Evaluator decides about one request. Implementations are called
// concurrently and must not keep or change the Input.
//
// A returned error means "undecided": the request is answered as unavailable
// and nothing changes. The context carries the deadline of the request.
type Evaluator interface {
	Evaluate(ctx context.Context, in *Input) (Decision, error)
}

// A SessionCounter is an Evaluator that reads [User.Sessions]. Counting a
// user's sessions costs a read of all of them, so the core only does it when
// CountsSessions returns true for the name of the policy
// in force (see [Input.Policy]).
type SessionCounter interface {
	Evaluator
	CountsSessions(policy string) bool
}

// EvaluatorFunc is a function that is an [Evaluator].
type EvaluatorFunc func(ctx context.Context, in *Input) (Decision, error)

// Evaluate calls f.
func (f EvaluatorFunc) Evaluate(ctx context.Context, in *Input) (Decision, error) {
	return f(ctx, in)
}

// Allow is the built-in policy: every session that the core finds in order
// gets the discharge the core proposes.
type Allow struct{}

// Evaluate returns [EffectAllow].
func (Allow) Evaluate(context.Context, *Input) (Decision, error) {
	return Decision{Effect: EffectAllow, Rule: "default"}, nil
}

// Action says what the client asked for.
type Action string

// The actions a policy is asked about. Logout is never refused by policy, so
// no policy sees it.
const (
	ActionActivate Action = "activate" // the session's first discharge
	ActionRefresh  Action = "refresh"  // any later one
)

// Replay says how the presented refresh token relates to the session's
// history. Everything but ReplayNone means that a token, or the bare caveat
// at activation, was presented more than once.
type Replay string

// The kinds of replay. For fork, stale and reuse the core has already refused
// the discharge; [Grant.Revokes] says whether it would also end the session.
const (
	ReplayNone  Replay = "none"  // the token expected next
	ReplayRetry Replay = "retry" // the confirmed token again, its successor unused: a lost reply
	ReplayFork  Replay = "fork"  // a successor that was replaced: two parties refreshed from one token
	ReplayStale Replay = "stale" // the token just superseded: two tabs racing
	ReplayReuse Replay = "reuse" // a token older than that: someone kept a copy
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
	Grant      Grant      `json:"grant"`      // what the core would do
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
	Sessions   int    `json:"sessions"`   // live sessions before this one; -1 unless counted, see SessionCounter
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
	Expires     time.Time         `json:"expires,omitzero"` // when it ends whatever happens; zero: no such time
	Epoch       uint64            `json:"epoch"`            // confirmed refreshes, mode rotate only
	FirstIP     string            `json:"first_ip"`         // canonical text, "" when unknown
	LastIP      string            `json:"last_ip"`          //
	FirstClient string            `json:"first_client"`     // as Request.Client, of the first discharge
	LastClient  string            `json:"last_client"`      // of the last one
	Labels      map[string]string `json:"labels"`           // the condition's, overlaid with those a policy stored
}

// Request is what is known about the party that asks now.
type Request struct {
	IP         string `json:"ip"`         // canonical text; through trusted proxies, or as the homeserver reports it in mode held
	Client     string `json:"client"`     // name of the program and its platform, without versions: Firefox on Linux
	UserAgent  string `json:"user_agent"` // the User-Agent itself, at most 256 bytes
	Homeserver bool   `json:"homeserver"` // the homeserver itself asks, with its API key
}

// Grant is what the core would do if the policy agrees.
type Grant struct {
	TTL     time.Duration `json:"ttl"`     // proposed lifetime of the discharge; 0 when the core refuses
	MaxTTL  time.Duration `json:"max_ttl"` // the longest it could be: a decision beyond it is cut to it
	Revokes bool          `json:"revokes"` // the core would end the session (theft suspected)
}

// Effect is what a policy wants done.
type Effect string

// The effects. EffectAllow accepts what the core would do, which for fork,
// stale and reuse is a refusal and perhaps a revocation: no policy turns
// those into a discharge. EffectDeny then softens a revocation to a refusal.
const (
	EffectAllow      Effect = "allow"
	EffectDeny       Effect = "deny"        // refuse this request; the session lives on
	EffectRevoke     Effect = "revoke"      // end this session
	EffectRevokeUser Effect = "revoke_user" // end every session of this user
	EffectReauth     Effect = "reauth"      // end this session, telling the client to log in again and keep its device keys
	EffectDefer      Effect = "defer"       // not now: the client comes back later, nothing changes
)

// Decision is what a policy answers. The zero value is no decision at all and
// is treated as an error.
type Decision struct {
	Effect       Effect            `json:"effect"`
	TTL          time.Duration     `json:"ttl,omitempty"`           // lifetime of the discharge; 0: as proposed
	Caveats      []string          `json:"caveats,omitempty"`       // first-party conditions to add to the discharge
	Code         string            `json:"code,omitempty"`          // reason the client is told, [a-z0-9_]; "": policy
	Message      string            `json:"message,omitempty"`       // sentence the client is told
	SoftLogout   bool              `json:"soft_logout,omitempty"`   // client should keep its device keys; implied by reauth
	Labels       map[string]string `json:"labels,omitempty"`        // to store with the session; an empty value removes
	KeepSessions int               `json:"keep_sessions,omitempty"` // with allow at activation: revoke the user's least recently used sessions beyond this many; 0: none
	RetryAfter   time.Duration     `json:"retry_after,omitempty"`   // with defer
	Rule         string            `json:"rule,omitempty"`          // what decided, for logs and metrics
	Hash         string            `json:"hash,omitempty"`          // version of the rule set that decided, for logs
}
