package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// Redis is a Redis to keep sessions in: one server, a primary that Sentinels
// watch over (MasterName), or a cluster (Cluster).
type Redis struct {
	// Addresses are host:port of the server, the Sentinels, or some of the
	// cluster's nodes. One server may be given as the path of its unix socket.
	Addresses  []string `yaml:"addresses"`
	MasterName string   `yaml:"master_name"` // what the Sentinels call the primary
	Cluster    bool     `yaml:"cluster"`
	DB         int      `yaml:"db"` // not in a cluster

	Username     string        `yaml:"username"`
	PasswordFile string        `yaml:"password_file"` // a line break at the end is not part of it
	PasswordEnv  string        `yaml:"password_env"`
	Password     caveat.Secret `yaml:"-"` // what was found there

	SentinelUsername     string        `yaml:"sentinel_username"`
	SentinelPasswordFile string        `yaml:"sentinel_password_file"`
	SentinelPasswordEnv  string        `yaml:"sentinel_password_env"`
	SentinelPassword     caveat.Secret `yaml:"-"`

	TLS        *TLS       `yaml:"tls"` // nil: not encrypted
	Timeouts   Timeouts   `yaml:"timeouts"`
	Durability Durability `yaml:"durability"`
	Replicas   int        `yaml:"replicas"`   // that Durability asks for; 0: one for replica, none for disk
	PoolSize   int        `yaml:"pool_size"`  // connections to each server for commands sent alone
	Pipelining bool       `yaml:"pipelining"` // commands of many concurrent requests travel together
	Journal    Journal    `yaml:"journal"`
}

var defaultJournal = Journal{Enabled: true, Window: 24 * time.Hour, Entries: 1_000_000}

// Journal is a file in which a process notes what it revokes before it says
// so, to do it again if a failover or an older copy of the store undoes it.
type Journal struct {
	Enabled bool          `yaml:"enabled"`
	Path    string        `yaml:"path"`    // empty: journal.db in the data directory
	Window  time.Duration `yaml:"window"`  // how long an entry is kept
	Entries int           `yaml:"entries"` // the most there may be; the oldest go first
}

// Timeouts of one command. All of it, repeats included, ends with the request's
// own timeout.
type Timeouts struct {
	Dial  time.Duration `yaml:"dial"`
	Read  time.Duration `yaml:"read"`
	Write time.Duration `yaml:"write"`
}

// Durability is what a logout waits for before it is acknowledged.
type Durability string

// The levels of durability.
const (
	DurablePrimary Durability = "primary" // the primary has it
	DurableReplica Durability = "replica" // as many replicas have it too
	DurableDisk    Durability = "disk"    // it is on the disk of the primary and of as many replicas
)

// setDefaults fills in what runs when only the addresses are given.
func (r *Redis) setDefaults() {
	*r = Redis{
		Timeouts:   Timeouts{Dial: 500 * time.Millisecond, Read: 500 * time.Millisecond, Write: 500 * time.Millisecond},
		Durability: DurablePrimary,
		PoolSize:   32,
		Pipelining: true,
		Journal:    defaultJournal,
	}
}

// TLS is how to talk to a server that encrypts. The zero value verifies the
// server with the system's authorities and the name it was dialled by.
type TLS struct {
	CAFile     string `yaml:"ca_file"`     // PEM; empty: the system's authorities
	CertFile   string `yaml:"cert_file"`   // PEM, for servers that want to know their clients
	KeyFile    string `yaml:"key_file"`    // PEM, of CertFile
	ServerName string `yaml:"server_name"` // expected in the server's certificate
}

// Load reads the files and returns a configuration for clients.
func (t *TLS) Load() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read authorities: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read authorities: %s has no certificate in PEM", t.CAFile)
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w (in %s and %s)", err, t.CertFile, t.KeyFile)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
