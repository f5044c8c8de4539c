package policy

import (
	"math"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// A field is one value of the Input that an expression can read. The table of
// them is the language's whole view of the world: the type checker, the size
// estimates, the spelling suggestions, the JSON Schema and the evaluation all
// read it, and nothing else of an Input is reachable from an expression.
type field struct {
	object string // "" for a variable of its own
	name   string
	typ    *cel.Type
	size   uint64   // longest string, or most entries of a map
	enum   []string // all values it can have
	doc    string
	get    func(*Input) ref.Val
	set    func(*Input) bool // what has() answers; nil: always true
	guard  bool              // reading it while unset is an error
	addr   bool              // it is an IP address, or empty
}

// path is how an expression writes the field.
func (f *field) path() string {
	if f.object == "" {
		return f.name
	}
	return f.object + "." + f.name
}

// Sizes that the core keeps to; see [Input].
const (
	maxNameBytes   = 255
	maxClientBytes = 40
	maxAgentBytes  = 256
	maxIPBytes     = 45
	maxLabels      = 32 // the condition's 16 and 16 that policies stored
	maxLabelKey    = 64
	maxLabelValue  = 256
)

func modes() []string { return []string{"open", "rotate", "held"} }

func actions() []string { return []string{string(ActionActivate), string(ActionRefresh)} }

func replays() []string {
	return []string{string(ReplayNone), string(ReplayRetry), string(ReplayFork), string(ReplayStale), string(ReplayReuse)}
}

// inputFields is the table. Its order is the order of the documentation.
func inputFields() []field {
	str := func(get func(*Input) string) func(*Input) ref.Val {
		return func(in *Input) ref.Val { return types.String(get(in)) }
	}
	when := func(get func(*Input) time.Time) func(*Input) ref.Val {
		return func(in *Input) ref.Val { return types.Timestamp{Time: get(in)} }
	}
	span := func(get func(*Input) time.Duration) func(*Input) ref.Val {
		return func(in *Input) ref.Val { return types.Duration{Duration: get(in)} }
	}
	count := func(get func(*Input) uint64) func(*Input) ref.Val {
		return func(in *Input) ref.Val { return types.Int(min(get(in), math.MaxInt64)) }
	}
	flag := func(get func(*Input) bool) func(*Input) ref.Val {
		return func(in *Input) ref.Val { return types.Bool(get(in)) }
	}
	known := func(get func(*Input) string) func(*Input) bool {
		return func(in *Input) bool { return get(in) != "" }
	}
	ip := func(in *Input) string { return in.Request.IP }
	firstIP := func(in *Input) string { return in.Session.FirstIP }
	lastIP := func(in *Input) string { return in.Session.LastIP }
	return []field{
		{name: "now", typ: cel.TimestampType,
			get: when(func(in *Input) time.Time { return in.Now }),
			doc: "The service's clock, read once for the whole request."},
		{name: "action", typ: cel.StringType, size: 16, enum: actions(),
			get: str(func(in *Input) string { return string(in.Action) }),
			doc: "activate for a session's first discharge, refresh for any later one."},
		{name: "policy", typ: cel.StringType, size: maxNameBytes,
			get: str(func(in *Input) string { return in.Policy }),
			doc: "The name under which this policy was chosen."},
		{name: "replay", typ: cel.StringType, size: 16, enum: replays(),
			get: str(func(in *Input) string { return string(in.Replay) }),
			doc: "How the presented refresh token relates to the session's history. Fork, stale and reuse are refused by the core already."},

		{object: "homeserver", name: "name", typ: cel.StringType, size: maxNameBytes,
			get: str(func(in *Input) string { return in.Homeserver.Name }),
			doc: "The homeserver's name in this service's configuration."},
		{object: "homeserver", name: "generation", typ: cel.IntType,
			get: count(func(in *Input) uint64 { return in.Homeserver.Generation }),
			doc: "How often all of the homeserver's sessions were revoked at once."},

		{object: "user", name: "id", typ: cel.StringType, size: maxNameBytes,
			get: str(func(in *Input) string { return in.User.ID }),
			doc: "The user as the homeserver names it, for instance @alice:example.org."},
		{object: "user", name: "generation", typ: cel.IntType,
			get: count(func(in *Input) uint64 { return in.User.Generation }),
			doc: "How often all of the user's sessions were revoked at once."},
		{object: "user", name: "sessions", typ: cel.IntType, guard: true,
			get: func(in *Input) ref.Val { return types.Int(in.User.Sessions) },
			set: func(in *Input) bool { return in.User.Sessions >= 0 },
			doc: "The user's live sessions before this one. A policy that mentions it makes the service count them."},

		{object: "session", name: "id", typ: cel.StringType, size: 22,
			get: str(func(in *Input) string { return in.Session.ID }),
			doc: "The session's identifier, 22 characters."},
		{object: "session", name: "device", typ: cel.StringType, size: maxNameBytes,
			get: str(func(in *Input) string { return in.Session.Device }),
			set: known(func(in *Input) string { return in.Session.Device }),
			doc: "The device as the homeserver names it; may be empty."},
		{object: "session", name: "mode", typ: cel.StringType, size: 16, enum: modes(),
			get: str(func(in *Input) string { return in.Session.Mode }),
			doc: "Who may fetch a discharge: open, rotate or held."},
		{object: "session", name: "minted", typ: cel.TimestampType,
			get: when(func(in *Input) time.Time { return in.Session.Minted }),
			doc: "When the homeserver made the access macaroon, by its clock."},
		{object: "session", name: "created", typ: cel.TimestampType,
			get: when(func(in *Input) time.Time { return in.Session.Created }),
			doc: "When the session got its first discharge; now at activation."},
		{object: "session", name: "last_used", typ: cel.TimestampType,
			get: when(func(in *Input) time.Time { return in.Session.LastUsed }),
			doc: "When it last got one; in modes open and held up to an hour older than the truth."},
		{object: "session", name: "expires", typ: cel.TimestampType, guard: true,
			get: when(func(in *Input) time.Time { return in.Session.Expires }),
			set: func(in *Input) bool { return !in.Session.Expires.IsZero() },
			doc: "When the session ends whatever happens. Not every session has one: ask has(session.expires) first."},
		{object: "session", name: "epoch", typ: cel.IntType,
			get: count(func(in *Input) uint64 { return in.Session.Epoch }),
			doc: "How many refreshes were confirmed; mode rotate only."},
		{object: "session", name: "first_ip", typ: cel.StringType, size: maxIPBytes, addr: true,
			get: str(firstIP), set: known(firstIP),
			doc: "The address of the first discharge; empty when unknown."},
		{object: "session", name: "last_ip", typ: cel.StringType, size: maxIPBytes, addr: true,
			get: str(lastIP), set: known(lastIP),
			doc: "The address of the last discharge; empty when unknown."},
		{object: "session", name: "first_client", typ: cel.StringType, size: maxClientBytes,
			get: str(func(in *Input) string { return in.Session.FirstClient }),
			set: known(func(in *Input) string { return in.Session.FirstClient }),
			doc: "The client of the first discharge, named as request.client is."},
		{object: "session", name: "last_client", typ: cel.StringType, size: maxClientBytes,
			get: str(func(in *Input) string { return in.Session.LastClient }),
			set: known(func(in *Input) string { return in.Session.LastClient }),
			doc: "The client of the last discharge, named as request.client is."},
		{object: "session", name: "labels", typ: cel.MapType(cel.StringType, cel.StringType), size: maxLabels,
			get: func(in *Input) ref.Val { return types.NewStringStringMap(types.DefaultTypeAdapter, in.Session.Labels) },
			doc: "The labels the homeserver sealed into the session, overlaid with those a policy stored. Read one with session.labels[?\"role\"].orValue(\"\")."},

		{object: "request", name: "ip", typ: cel.StringType, size: maxIPBytes, addr: true,
			get: str(ip), set: known(ip),
			doc: "The address that asks, through trusted proxies; empty when unknown."},
		{object: "request", name: "client", typ: cel.StringType, size: maxClientBytes,
			get: str(func(in *Input) string { return in.Request.Client }),
			set: known(func(in *Input) string { return in.Request.Client }),
			doc: "The client that asks: program and platform without versions, for instance Firefox on Linux. It stays the same when the client updates itself."},
		{object: "request", name: "user_agent", typ: cel.StringType, size: maxAgentBytes,
			get: str(func(in *Input) string { return in.Request.UserAgent }),
			set: known(func(in *Input) string { return in.Request.UserAgent }),
			doc: "The User-Agent that asks, versions included, at most 256 bytes. Nothing of a session can be compared with it."},
		{object: "request", name: "homeserver", typ: cel.BoolType,
			get: flag(func(in *Input) bool { return in.Request.Homeserver }),
			doc: "Whether the homeserver itself asks, with its API key."},

		{object: "grant", name: "ttl", typ: cel.DurationType,
			get: span(func(in *Input) time.Duration { return in.Grant.TTL }),
			doc: "The lifetime that the core proposes for the discharge; zero when it refuses."},
		{object: "grant", name: "max_ttl", typ: cel.DurationType,
			get: span(func(in *Input) time.Duration { return in.Grant.MaxTTL }),
			doc: "The longest lifetime it could have. What a policy asks beyond it is cut."},
		{object: "grant", name: "revokes", typ: cel.BoolType,
			get: flag(func(in *Input) bool { return in.Grant.Revokes }),
			doc: "Whether the core would end the session, because it suspects theft."},
	}
}
