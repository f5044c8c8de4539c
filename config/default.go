package config

import (
	"cmp"
	_ "embed"
	"log/slog"
	"path/filepath"
	"time"
)

//go:embed example.yaml
var example string

// Example returns a configuration file with every key, explained. Keys that are not
// commented out have their defaults.
func Example() string { return example }

// Default returns the configuration without a file: the embedded store and fresh
// keys in ./discharger-data, loopback addresses, and no homeserver.
func Default() *Config {
	return &Config{
		Listen:      "127.0.0.1:8090",
		AdminListen: "127.0.0.1:8091",
		DataDir:     "./discharger-data",
		Discharge: Discharge{
			TTL:              5 * time.Minute,
			MaxTTL:           time.Hour,
			ActivationWindow: 10 * time.Minute,
			Grace:            10 * time.Second,
			ClockSkew:        time.Minute,
		},
		Session:         Session{Idle: 30 * 24 * time.Hour, RememberEnded: 90 * 24 * time.Hour},
		Feed:            Feed{Heartbeat: 10 * time.Second, Subscribers: 64, Events: 1_000_000},
		Limits:          Limits{InFlight: 4096, PerAddress: 256},
		CORSOrigins:     []string{"*"},
		RequestTimeout:  2 * time.Second,
		ShutdownTimeout: 15 * time.Second,
		Log:             Log{Level: slog.LevelInfo, Format: LogText},
	}
}

// path returns a configured path, or the usual one in the data directory.
func (c *Config) path(configured, usual string) string {
	return cmp.Or(configured, filepath.Join(c.DataDir, usual))
}

// KeyFile returns the path of the key file.
func (c *Config) KeyFile() string { return c.path(c.Keys.File, "keys.json") }

// SigningFile returns the path of the keys that sign security events.
func (c *Config) SigningFile() string { return c.path(c.Keys.SigningFile, "signing.pem") }

// Journal returns the settings of the journal of the store in use.
func (c *Config) Journal() Journal {
	switch {
	case c.Store.Redis != nil:
		return c.Store.Redis.Journal
	case c.Store.Bolt != nil:
		return c.Store.Bolt.Journal
	}
	return defaultJournal
}

// JournalFile returns the path of the journal of revocations.
func (c *Config) JournalFile() string { return c.path(c.Journal().Path, "journal.db") }

// BoltFile returns the path of the embedded store, in use if Store.Redis is nil.
func (c *Config) BoltFile() string {
	return c.path(cmp.Or(c.Store.Bolt, &Bolt{}).Path, "sessions.db")
}

// GatewayKeyFile returns the path of the gateway's key file.
func (c *Config) GatewayKeyFile() string {
	return c.path(cmp.Or(c.Gateway, &Gateway{}).KeysFile, "gateway.json")
}

// GatewayOutboxFile returns the path of the gateway's outbox.
func (c *Config) GatewayOutboxFile() string { return c.path("", "gateway.db") }
