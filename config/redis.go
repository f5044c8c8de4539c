package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/secret"
)

// Redis is a store of sessions: one server, a primary with Sentinels (MasterName) or
// a cluster (Cluster).
type Redis struct {
	// Addresses are host:port of the server, of the Sentinels, or of nodes of the
	// cluster. For a single server it may be the path of a unix socket.
	Addresses  []string `yaml:"addresses"`
	MasterName string   `yaml:"master_name"` // name of the primary at the Sentinels
	Cluster    bool     `yaml:"cluster"`
	DB         int      `yaml:"db" min:"0"` // not in a cluster

	Username     string       `yaml:"username"`
	PasswordFile string       `yaml:"password_file" file:"read"` // a line break at the end is removed
	PasswordEnv  string       `yaml:"password_env"`
	Password     secret.Bytes `yaml:"-"` // read from the file or the variable

	SentinelUsername     string       `yaml:"sentinel_username"`
	SentinelPasswordFile string       `yaml:"sentinel_password_file" file:"read"`
	SentinelPasswordEnv  string       `yaml:"sentinel_password_env"`
	SentinelPassword     secret.Bytes `yaml:"-"`

	TLS        *TLS       `yaml:"tls"` // nil: no encryption
	Timeouts   Timeouts   `yaml:"timeouts"`
	Durability Durability `yaml:"durability"`
	Replicas   int        `yaml:"replicas" min:"0"`  // for Durability; 0: one for replica, none for disk
	PoolSize   int        `yaml:"pool_size" min:"1"` // connections to each server for single commands
	Pipelining bool       `yaml:"pipelining"`        // send commands of concurrent requests together
	Journal    Journal    `yaml:"journal"`
}

var defaultJournal = Journal{Enabled: true, Window: 24 * time.Hour, Entries: 1_000_000}

// Journal is the file to which a process writes revocations before it acknowledges
// them. They are replayed after a failover or a restored copy of the store.
type Journal struct {
	Enabled bool          `yaml:"enabled"`
	Path    string        `yaml:"path"`               // empty: journal.db in the data directory
	Window  time.Duration `yaml:"window" min:"1m"`    // lifetime of an entry
	Entries int           `yaml:"entries" min:"1000"` // most entries; the oldest are dropped first
}

// Timeouts are those of one command. The timeout of the request bounds all of its
// commands and their retries.
type Timeouts struct {
	Dial  time.Duration `yaml:"dial" min:"1ns"`
	Read  time.Duration `yaml:"read" min:"1ns"`
	Write time.Duration `yaml:"write" min:"1ns"`
}

// Durability is the condition on which a logout is acknowledged.
type Durability string

// Levels of durability.
const (
	DurablePrimary Durability = "primary" // written by the primary
	DurableReplica Durability = "replica" // and by Replicas replicas
	DurableDisk    Durability = "disk"    // on the disks of the primary and of Replicas replicas
)

func (Durability) names() []string {
	return []string{string(DurablePrimary), string(DurableReplica), string(DurableDisk)}
}

// setDefaults sets the values of a Redis of which only the addresses are given.
func (r *Redis) setDefaults() {
	*r = Redis{
		Timeouts:   Timeouts{Dial: 500 * time.Millisecond, Read: 500 * time.Millisecond, Write: 500 * time.Millisecond},
		Durability: DurablePrimary,
		PoolSize:   32,
		Pipelining: true,
		Journal:    defaultJournal,
	}
}

// TLS configures connections with TLS. The zero value verifies the server with the
// system's authorities and the name it was dialled by.
type TLS struct {
	CAFile     string `yaml:"ca_file" file:"read"`   // PEM; empty: the system's authorities
	CertFile   string `yaml:"cert_file" file:"read"` // PEM, for servers that authenticate their clients
	KeyFile    string `yaml:"key_file" file:"read"`  // PEM, of CertFile
	ServerName string `yaml:"server_name"`           // expected in the server's certificate
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

func (d *decoder) validateStore(s *Store) {
	if s.Bolt != nil && s.Redis != nil {
		d.at("store", "has both bolt and redis; want one")
	}
	if s.Redis != nil {
		d.validateRedis(s.Redis)
	}
}

func (d *decoder) validateRedis(c *Redis) {
	const key = "store.redis"
	if len(c.Addresses) == 0 {
		d.missing(key+".addresses", "")
	}
	for i, a := range c.Addresses {
		if strings.HasPrefix(a, "/") && !c.Cluster && c.MasterName == "" {
			continue // a unix socket
		}
		d.address(fmt.Sprintf("%s.addresses[%d]", key, i), a, false)
	}
	switch {
	case c.Cluster && c.MasterName != "":
		d.at(key+".cluster", "excludes master_name: a cluster has no Sentinels")
	case !c.Cluster && c.MasterName == "" && len(c.Addresses) > 1:
		d.at(key+".addresses", "names %d servers; set cluster: true for a cluster, or master_name for Sentinels", len(c.Addresses))
	case c.Cluster && c.DB != 0:
		d.at(key+".db", "a cluster has database 0 only")
	}
	d.oneSource(key+".password", c.PasswordFile, c.PasswordEnv)
	d.oneSource(key+".sentinel_password", c.SentinelPasswordFile, c.SentinelPasswordEnv)
	if c.MasterName == "" && (c.SentinelUsername != "" || c.SentinelPasswordFile != "" || c.SentinelPasswordEnv != "") {
		d.missing(key+".master_name", "there is a password or a username for Sentinels")
	}
	d.certificate(key+".tls", c.TLS)
	if c.Replicas > 0 && c.Durability == DurablePrimary {
		d.at(key+".replicas", "excludes durability: primary, which waits for no replica")
	}
}

// certificate checks that a certificate and its key are both there or neither.
func (d *decoder) certificate(key string, t *TLS) {
	if t != nil && (t.CertFile == "") != (t.KeyFile == "") {
		d.at(key, "cert_file and key_file require each other")
	}
}

// oneSource checks that a secret has one source.
func (d *decoder) oneSource(key, file, variable string) {
	if file != "" && variable != "" {
		d.at(key+"_env", "excludes %s_file; want one of them", key)
	}
}
