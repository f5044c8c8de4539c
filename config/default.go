package config

import (
	"log/slog"
	"path/filepath"
	"time"
)

// Default is what runs with no file at all: the embedded store and fresh keys
// in ./discharger-data, loopback addresses, and no homeserver.
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

// KeyFile is the path of the key file.
func (c *Config) KeyFile() string {
	if c.Keys.File != "" {
		return c.Keys.File
	}
	return filepath.Join(c.DataDir, "keys.json")
}

// SigningFile is the path of the keys that security events are signed with.
func (c *Config) SigningFile() string {
	if c.Keys.SigningFile != "" {
		return c.Keys.SigningFile
	}
	return filepath.Join(c.DataDir, "signing.pem")
}

// Journal is what the store in use says of its journal.
func (c *Config) Journal() Journal {
	switch {
	case c.Store.Redis != nil:
		return c.Store.Redis.Journal
	case c.Store.Bolt != nil:
		return c.Store.Bolt.Journal
	}
	return defaultJournal
}

// JournalFile is the path of the journal of revocations.
func (c *Config) JournalFile() string {
	if path := c.Journal().Path; path != "" {
		return path
	}
	return filepath.Join(c.DataDir, "journal.db")
}

// BoltFile is the path of the embedded store, which is in use if Store.Redis
// is nil.
func (c *Config) BoltFile() string {
	if c.Store.Bolt != nil && c.Store.Bolt.Path != "" {
		return c.Store.Bolt.Path
	}
	return filepath.Join(c.DataDir, "sessions.db")
}
