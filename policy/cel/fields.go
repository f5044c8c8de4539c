package cel

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/discharger/discharger/policy"
)

// A Field is a value of the Input that expressions can read. The type checker, the cost
// estimates, the spelling suggestions, the JSON Schema and the evaluation use the table
// of fields; expressions can read no other part of an Input.
type Field struct {
	Object   string // "": a variable without an object
	Name     string
	Type     *cel.Type
	Size     uint64   // bound of the bytes of a string, or of the entries of a map
	Enum     []string // all values; nil: any
	Doc      string   // for operators
	Required bool     // reading it while unset is an error

	load func(context.Context, *policy.Input) error // completes the input before get; nil: it is complete
	get  func(*policy.Input) ref.Val
	set  func(*policy.Input) bool // the result of has(); nil: always true
	addr bool                     // an IP address, or empty
}

// Path returns the field as in expressions: object.name or name.
func (f *Field) Path() string {
	if f.Object == "" {
		return f.Name
	}
	return f.Object + "." + f.Name
}

// Objects returns the variables with fields in documentation order.
func Objects() []string {
	return []string{"homeserver", "user", "session", "request", "grant"}
}

// Names returns the names of the fields of an object; "" stands for variables without one.
func Names(fields []Field, object string) []string {
	var names []string
	for _, f := range fields {
		if f.Object == object {
			names = append(names, f.Name)
		}
	}
	return names
}

// Sizes of the core's strings; see [policy.Input].
const (
	maxNameBytes   = 255
	maxClientBytes = 40
	maxAgentBytes  = 256
	maxIPBytes     = 45
	maxLabels      = 2 * policy.MaxLabels // of the condition and stored by policies
)

// Fields returns the field table in documentation order.
func Fields() []Field {
	return slices.Concat(topFields(), ownerFields(), sessionFields(), requestFields(), grantFields())
}

func topFields() []Field {
	return []Field{
		moment("now", func(in *policy.Input) time.Time { return in.Now },
			"The service's clock, read once for the whole request."),
		text("action", 16, func(in *policy.Input) string { return string(in.Action) },
			"activate for a session's first discharge, refresh for any later one.").
			of(string(policy.ActionActivate), string(policy.ActionRefresh)),
		text("policy", maxNameBytes, func(in *policy.Input) string { return in.Policy },
			"The name of this policy in the request."),
		text("replay", 16, func(in *policy.Input) string { return string(in.Replay) },
			"The relation of the presented refresh token to the session's history. The core has refused fork, stale and reuse.").
			of(string(policy.ReplayNone), string(policy.ReplayRetry), string(policy.ReplayFork), string(policy.ReplayStale), string(policy.ReplayReuse)),
	}
}

func ownerFields() []Field {
	return []Field{
		text("homeserver.name", maxNameBytes, func(in *policy.Input) string { return in.Homeserver.Name },
			"The homeserver's name in this service's configuration."),
		count("homeserver.generation", func(in *policy.Input) uint64 { return in.Homeserver.Generation },
			"The number of revocations of all sessions of the homeserver."),

		text("user.id", maxNameBytes, func(in *policy.Input) string { return in.User.ID },
			"The identifier of the user, for instance @alice:example.org."),
		count("user.generation", func(in *policy.Input) uint64 { return in.User.Generation },
			"The number of revocations of all sessions of the user."),
		{
			Object: "user", Name: "sessions", Type: cel.IntType, Required: true,
			load: func(ctx context.Context, in *policy.Input) error { _, err := in.CountSessions(ctx); return err },
			get:  func(in *policy.Input) ref.Val { return types.Int(in.User.Sessions) },
			set:  func(in *policy.Input) bool { return in.User.Sessions >= 0 || in.Counter != nil },
			Doc:  "The number of live sessions of the user without this one. The service counts them at the first read.",
		},
	}
}

func sessionFields() []Field {
	return []Field{
		text("session.id", 22, func(in *policy.Input) string { return in.Session.ID },
			"The session's identifier, 22 characters."),
		optional("session.device", maxNameBytes, func(in *policy.Input) string { return in.Session.Device },
			"The identifier of the device; may be empty."),
		text("session.mode", 16, func(in *policy.Input) string { return in.Session.Mode },
			"The mode: open, rotate or held.").
			of("open", "rotate", "held"),
		moment("session.minted", func(in *policy.Input) time.Time { return in.Session.Minted },
			"The time of the access macaroon by the homeserver's clock."),
		moment("session.created", func(in *policy.Input) time.Time { return in.Session.Created },
			"The time of the first discharge; now at activation."),
		moment("session.last_used", func(in *policy.Input) time.Time { return in.Session.LastUsed },
			"The time of the last discharge; in modes open and held up to an hour early."),
		moment("session.expires", func(in *policy.Input) time.Time { return in.Session.Expires },
			"The end of the absolute lifetime. Some sessions have none: test has(session.expires) first.").
			required(func(in *policy.Input) bool { return !in.Session.Expires.IsZero() }),
		count("session.epoch", func(in *policy.Input) uint64 { return in.Session.Epoch },
			"The number of confirmed refreshes; mode rotate only."),
		address("session.first_ip", func(in *policy.Input) string { return in.Session.FirstIP },
			"The address of the first discharge; empty when unknown."),
		address("session.last_ip", func(in *policy.Input) string { return in.Session.LastIP },
			"The address of the last discharge; empty when unknown."),
		optional("session.first_client", maxClientBytes, func(in *policy.Input) string { return in.Session.FirstClient },
			"The client of the first discharge in the form of request.client."),
		optional("session.last_client", maxClientBytes, func(in *policy.Input) string { return in.Session.LastClient },
			"The client of the last discharge in the form of request.client."),
		{
			Object: "session", Name: "labels", Type: cel.MapType(cel.StringType, cel.StringType), Size: maxLabels,
			get: func(in *policy.Input) ref.Val {
				return types.NewStringStringMap(types.DefaultTypeAdapter, in.Session.Labels)
			},
			Doc: "The labels of the condition, overlaid with those stored by policies. Read one with session.labels[?\"role\"].orValue(\"\").",
		},
	}
}

func requestFields() []Field {
	return []Field{
		address("request.ip", func(in *policy.Input) string { return in.Request.IP },
			"The address of the request, through trusted proxies; empty when unknown."),
		optional("request.client", maxClientBytes, func(in *policy.Input) string { return in.Request.Client },
			"The client of the request: program and platform without versions, for instance Firefox on Linux. An update of the client does not change it."),
		optional("request.user_agent", maxAgentBytes, func(in *policy.Input) string { return in.Request.UserAgent },
			"The User-Agent of the request, at most 256 bytes. Sessions do not store it; compare request.client instead."),
		field("request.homeserver", cel.BoolType, func(in *policy.Input) ref.Val { return types.Bool(in.Request.Homeserver) },
			"Whether the homeserver makes the request with its API key."),
	}
}

func grantFields() []Field {
	span := func(name string, get func(*policy.Input) time.Duration, doc string) Field {
		return field(name, cel.DurationType, func(in *policy.Input) ref.Val { return types.Duration{Duration: get(in)} }, doc)
	}
	return []Field{
		span("grant.ttl", func(in *policy.Input) time.Duration { return in.Grant.TTL },
			"The lifetime that the core proposes for the discharge; zero when it refuses."),
		span("grant.max_ttl", func(in *policy.Input) time.Duration { return in.Grant.MaxTTL },
			"The longest lifetime of the discharge. A longer ttl is cut to it."),
		field("grant.revokes", cel.BoolType, func(in *policy.Input) ref.Val { return types.Bool(in.Grant.Revokes) },
			"Whether the core would end the session because it suspects theft."),
	}
}

func field(path string, typ *cel.Type, get func(*policy.Input) ref.Val, doc string) Field {
	object, name, found := strings.Cut(path, ".")
	if !found {
		object, name = "", path
	}
	return Field{Object: object, Name: name, Type: typ, get: get, Doc: doc}
}

func text(path string, size uint64, get func(*policy.Input) string, doc string) Field {
	f := field(path, cel.StringType, func(in *policy.Input) ref.Val { return types.String(get(in)) }, doc)
	f.Size = size
	return f
}

// optional returns a text field that is unset if empty.
func optional(path string, size uint64, get func(*policy.Input) string, doc string) Field {
	f := text(path, size, get, doc)
	f.set = func(in *policy.Input) bool { return get(in) != "" }
	return f
}

func address(path string, get func(*policy.Input) string, doc string) Field {
	f := optional(path, maxIPBytes, get, doc)
	f.addr = true
	return f
}

func moment(path string, get func(*policy.Input) time.Time, doc string) Field {
	return field(path, cel.TimestampType, func(in *policy.Input) ref.Val { return types.Timestamp{Time: get(in)} }, doc)
}

func count(path string, get func(*policy.Input) uint64, doc string) Field {
	return field(path, cel.IntType, func(in *policy.Input) ref.Val { return types.Int(min(get(in), math.MaxInt64)) }, doc)
}

// of returns the field with a fixed set of values.
func (f Field) of(values ...string) Field {
	f.Enum = values
	return f
}

// required returns the field with an error for reading it while set returns false.
func (f Field) required(set func(*policy.Input) bool) Field {
	f.Required, f.set = true, set
	return f
}
