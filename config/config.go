// Package config reads what an operator writes and turns it into settings that
// the service can be started with.
//
// # Where settings come from
//
// In this order, each over the one before:
//
//	defaults      [Default]: what runs with no file at all
//	the file      one YAML document
//	environment   a few variables, listed at [Variables]
//	flags         the address to listen on, for trying things out
//
// Secrets are never in the file and never in flags. A key that ends in _file
// names a file to read one from, one that ends in _env an environment variable.
// The service's own keys are in a file that package keyfile keeps.
//
// # Strictness
//
// A mistake in a configuration of an authentication service must not be
// survived quietly. A key that does not exist, a key that comes twice, a value
// of the wrong type, one document too many, an alias: all are errors, and all
// of a file's errors are reported together, each with its place:
//
//	discharger.yaml:12:3: discharge.tll: unknown key, did you mean ttl?
//	discharger.yaml:20:11: homeservers[1].public_key: key is weak: …
//
// A key that holds nothing is an error too. To have a default, leave the key
// out.
//
// # Names
//
// Durations are written as 90s, 5m or 720h. Where zero is allowed, the comment
// of the field says what it means. Relative paths are relative to the directory
// that the program was started in. Every key is described in the text that
// [Example] returns; a test compares it with the types below.
package config

import (
	"log/slog"
	"net/netip"
	"time"
)

// Config is a complete and checked configuration.
type Config struct {
	Listen      string `yaml:"listen"`       // host:port for clients and homeservers
	AdminListen string `yaml:"admin_listen"` // host:port for /metrics, /healthz and /readyz
	AdminPublic bool   `yaml:"admin_public"` // AdminListen may be an address that others can reach
	PublicURL   string `yaml:"public_url"`   // where clients reach Listen; empty: http at the bound address
	DataDir     string `yaml:"data_dir"`     // the key file and the embedded store, unless they say otherwise

	Keys        Keys         `yaml:"keys"`
	Store       Store        `yaml:"store"`
	Homeservers []Homeserver `yaml:"homeservers"`
	Policy      Policy       `yaml:"policy"`
	Discharge   Discharge    `yaml:"discharge"`
	Session     Session      `yaml:"session"`
	Gateway     *Gateway     `yaml:"gateway"` // nil: there is none
	Feed        Feed         `yaml:"feed"`
	Limits      Limits       `yaml:"limits"`

	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"` // whose X-Forwarded-For is believed; an address stands for itself
	CORSOrigins    []string       `yaml:"cors_origins"`    // web pages that may call the client API; "*" is any

	RequestTimeout  time.Duration `yaml:"request_timeout" min:"1ns"`  // one request may take this long, store included
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout" min:"1ns"` // requests under way at SIGTERM may take this long
	Log             Log           `yaml:"log"`
}

// Keys says where the service's own keys are.
type Keys struct {
	File          string `yaml:"file" file:"read"`         // empty: keys.json in the data directory
	SigningFile   string `yaml:"signing_file" file:"read"` // of what security events are signed with; empty: signing.pem in the data directory
	GroupReadable bool   `yaml:"group_readable"`           // the files' group may read and write them, as mounted secrets need
}

// Store says where sessions are kept: in Redis if that is given, and in one
// file if not. Giving both is an error.
type Store struct {
	Bolt  *Bolt  `yaml:"bolt"`
	Redis *Redis `yaml:"redis"`
}

// Bolt is the embedded store.
type Bolt struct {
	Path    string  `yaml:"path"`    // empty: sessions.db in the data directory
	Journal Journal `yaml:"journal"` // what an older copy of the file is given again
}

// setDefaults fills in what runs without a configuration.
func (b *Bolt) setDefaults() { b.Journal = defaultJournal }

// Policy says where the rules are that decide about sessions. The names that a
// homeserver or a session may give are those of the policies in the files and
// of the built-in ones; what is in the files is not checked here.
type Policy struct {
	Files  []string `yaml:"files" file:"read"`  // rule files; none: the built-in policies only
	Shadow string   `yaml:"shadow" file:"read"` // a rule file that is evaluated beside them and never answers; empty: none
	Audit  string   `yaml:"audit"`              // where every decision is recorded; empty: nowhere
	Schema string   `yaml:"schema" file:"read"` // of caveats that policies may add beside the standard ones; empty: none
}

// Discharge is how long things last around one discharge.
type Discharge struct {
	TTL              time.Duration `yaml:"ttl" min:"1ns"`               // of a discharge, unless a policy says otherwise
	MaxTTL           time.Duration `yaml:"max_ttl" min:"1ns"`           // the longest a policy may make it
	ActivationWindow time.Duration `yaml:"activation_window" min:"1ns"` // from minting to the first discharge, at the latest
	Grace            time.Duration `yaml:"grace" min:"1ns"`             // a refresh token used twice within this is a lost reply, not a thief
	ClockSkew        time.Duration `yaml:"clock_skew" min:"1ns"`        // how far ahead a homeserver's clock may be
}

// Session is how long sessions last, and how long their ends are remembered.
type Session struct {
	Idle          time.Duration `yaml:"idle"`                    // without a discharge; 0: for ever
	Absolute      time.Duration `yaml:"absolute"`                // since the access macaroon was minted; 0: for ever
	RememberEnded time.Duration `yaml:"remember_ended" min:"1h"` // for this long a hard end is remembered, and answered as one
}

// Feed is how homeservers follow what is revoked.
type Feed struct {
	Heartbeat   time.Duration `yaml:"heartbeat" min:"1s" max:"10m"` // how often a stream says something, at least
	Subscribers int           `yaml:"subscribers" min:"1"`          // streams that one homeserver may have at one process
	Events      int           `yaml:"events" min:"1000"`            // kept of one homeserver; beyond that, the oldest go before their time
}

// Limits bound what the service takes on at a time.
type Limits struct {
	InFlight   int `yaml:"in_flight" min:"16" max:"1000000"` // requests that are worked on; a quarter is reserved for homeservers
	PerAddress int `yaml:"per_address" min:"1"`              // requests of one address, a /64 of IPv6; those of homeservers do not count
}

// Log says what is logged, to standard error.
type Log struct {
	Level  slog.Level `yaml:"level"`  // debug, info, warn or error
	Format LogFormat  `yaml:"format"` // text or json
}

// LogFormat is how a line of the log looks.
type LogFormat string

// The formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

func (LogFormat) names() []string { return []string{string(LogText), string(LogJSON)} }
