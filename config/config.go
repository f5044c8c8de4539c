// Package config reads and checks the configuration of the service: [Load] returns
// settings with which the service can start, or every mistake in them.
//
// # Sources
//
// Each source overrides those above it:
//
//	defaults      [Default]
//	file          one YAML document
//	environment   a few variables, listed by [Variables]
//	flags         such as --listen, for trying things out
//
// Secrets are never in the file or in flags. A key that ends in _file names a file
// that holds the secret, one that ends in _env an environment variable. The
// service's own keys are in a file of package keyfile.
//
// # Strictness
//
// A mistake in the configuration of an authentication service must not go unnoticed.
// Package yamlfile reads the file strictly, and reports all mistakes at once, each with
// its place and with values masked that may be a secret in the wrong place. A key
// without a value is an error too: leave the key out for the default.
//
// # Keys and bounds
//
// The yaml tag of a field is its key. The tags min and max bound numbers and
// durations, file marks files that are read, and hide masks a value in excerpts.
// Relative paths are relative to the working directory. [Example] explains every key;
// a test compares it with the types.
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
	AdminPublic bool   `yaml:"admin_public"` // AdminListen may be reachable from other hosts
	PublicURL   string `yaml:"public_url"`   // URL of Listen for clients; empty: http and the bound address
	DataDir     string `yaml:"data_dir"`     // directory of the key file and the embedded store, unless they are configured

	Keys        Keys         `yaml:"keys"`
	Store       Store        `yaml:"store"`
	Homeservers []Homeserver `yaml:"homeservers"`
	Policy      Policy       `yaml:"policy"`
	Discharge   Discharge    `yaml:"discharge"`
	Session     Session      `yaml:"session"`
	Gateway     *Gateway     `yaml:"gateway"` // nil: none
	Feed        Feed         `yaml:"feed"`
	Limits      Limits       `yaml:"limits"`

	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"` // proxies whose X-Forwarded-For counts; an address is a network of itself
	CORSOrigins    []string       `yaml:"cors_origins"`    // origins of web pages that may call the client API; "*": any

	RequestTimeout  time.Duration `yaml:"request_timeout" min:"1ns"`  // of one request, store included
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout" min:"1ns"` // of requests in progress at SIGTERM
	Log             Log           `yaml:"log"`
}

// Keys are the files of the service's own keys.
type Keys struct {
	File          string `yaml:"file" file:"read"`         // empty: keys.json in the data directory
	SigningFile   string `yaml:"signing_file" file:"read"` // keys that sign security events; empty: signing.pem in the data directory
	GroupReadable bool   `yaml:"group_readable"`           // the group of the files may read and write them, as mounted secrets require
}

// Store is the store of sessions: Redis if configured, and otherwise the embedded
// store. Both are an error.
type Store struct {
	Bolt  *Bolt  `yaml:"bolt"`
	Redis *Redis `yaml:"redis"`
}

// Bolt is the embedded store.
type Bolt struct {
	Path    string  `yaml:"path"`    // empty: sessions.db in the data directory
	Journal Journal `yaml:"journal"` // replayed into an older copy of the file
}

// setDefaults sets the defaults.
func (b *Bolt) setDefaults() { b.Journal = defaultJournal }

// Policy names the files of policies, whose content is not checked here. Homeservers
// and sessions may name the policies in Files and the built-in ones.
type Policy struct {
	Files  []string `yaml:"files" file:"read"`  // rule files; none: the built-in policies
	Shadow string   `yaml:"shadow" file:"read"` // rule file that is evaluated beside them without effect; empty: none
	Audit  string   `yaml:"audit"`              // file to which every decision is appended; empty: none
	Schema string   `yaml:"schema" file:"read"` // schema of caveats that policies may add beside the standard ones; empty: none
}

// Discharge has the lifetimes around one discharge.
type Discharge struct {
	TTL              time.Duration `yaml:"ttl" min:"1ns"`               // of a discharge, unless a policy sets another
	MaxTTL           time.Duration `yaml:"max_ttl" min:"1ns"`           // greatest that a policy may set
	ActivationWindow time.Duration `yaml:"activation_window" min:"1ns"` // between minting and the first discharge
	Grace            time.Duration `yaml:"grace" min:"1ns"`             // within which a repeated refresh token gets the same successor
	ClockSkew        time.Duration `yaml:"clock_skew" min:"1ns"`        // by which a homeserver's clock may be ahead
}

// Session has the lifetimes of sessions and tombstones.
type Session struct {
	Idle          time.Duration `yaml:"idle"`                    // without a discharge; 0: unlimited
	Absolute      time.Duration `yaml:"absolute"`                // since the access macaroon was minted; 0: unlimited
	RememberEnded time.Duration `yaml:"remember_ended" min:"1h"` // of a hard tombstone
}

// Feed configures the feeds of revocations.
type Feed struct {
	Heartbeat   time.Duration `yaml:"heartbeat" min:"1s" max:"10m"` // greatest silence of a stream
	Subscribers int           `yaml:"subscribers" min:"1"`          // streams of one homeserver at one process
	Events      int           `yaml:"events" min:"1000"`            // kept of one homeserver; beyond that, the oldest are dropped early
}

// Limits bound the requests in progress.
type Limits struct {
	InFlight   int `yaml:"in_flight" min:"16" max:"1000000"` // all requests; a quarter is reserved for homeservers
	PerAddress int `yaml:"per_address" min:"1"`              // of one client address, a /64 of IPv6; homeservers do not count
}

// Log configures the log on standard error.
type Log struct {
	Level  slog.Level `yaml:"level"`  // debug, info, warn or error
	Format LogFormat  `yaml:"format"` // text or json
}

// LogFormat is the format of the log.
type LogFormat string

// The formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

func (LogFormat) names() []string { return []string{string(LogText), string(LogJSON)} }
