package config

import (
	"fmt"
	"strings"
	"time"
)

func (r *report) validateStore(s *Store) {
	if s.Bolt != nil && s.Redis != nil {
		r.at("store", "has both bolt and redis; sessions are kept in one place")
	}
	if s.Redis != nil {
		r.validateRedis(s.Redis)
	}
	if s.Bolt != nil {
		r.validateJournal("store.bolt.journal", &s.Bolt.Journal)
	}
}

func (r *report) validateRedis(c *Redis) {
	const key = "store.redis"
	if len(c.Addresses) == 0 {
		r.at(key+".addresses", "is missing")
	}
	for i, a := range c.Addresses {
		if strings.HasPrefix(a, "/") && !c.Cluster && c.MasterName == "" {
			continue // a unix socket
		}
		r.address(fmt.Sprintf("%s.addresses[%d]", key, i), a, false)
	}
	switch {
	case c.Cluster && c.MasterName != "":
		r.at(key+".cluster", "goes not together with master_name: a cluster has no Sentinels")
	case !c.Cluster && c.MasterName == "" && len(c.Addresses) > 1:
		r.at(key+".addresses", "names %d servers; set cluster: true for a cluster, or master_name for Sentinels", len(c.Addresses))
	case c.Cluster && c.DB != 0:
		r.at(key+".db", "a cluster has database 0 only")
	case c.DB < 0:
		r.at(key+".db", "want 0 or more, got %d", c.DB)
	}
	r.oneSource(key+".password", c.PasswordFile, c.PasswordEnv)
	r.oneSource(key+".sentinel_password", c.SentinelPasswordFile, c.SentinelPasswordEnv)
	if c.MasterName == "" && (c.SentinelUsername != "" || c.SentinelPasswordFile != "" || c.SentinelPasswordEnv != "") {
		r.at(key+".master_name", "is missing, but there is a password or a username for Sentinels")
	}
	if t := c.TLS; t != nil && (t.CertFile == "") != (t.KeyFile == "") {
		r.at(key+".tls", "cert_file and key_file go together")
	}
	for name, d := range map[string]time.Duration{
		"dial": c.Timeouts.Dial, "read": c.Timeouts.Read, "write": c.Timeouts.Write,
	} {
		if d <= 0 {
			r.at(key+".timeouts."+name, "want more than 0, got %s", d)
		}
	}
	switch c.Durability {
	case DurablePrimary, DurableReplica, DurableDisk:
	default:
		r.at(key+".durability", "want primary, replica or disk, got %q", cut(string(c.Durability)))
	}
	switch {
	case c.Replicas < 0:
		r.at(key+".replicas", "want 0 or more, got %d", c.Replicas)
	case c.Replicas > 0 && c.Durability == DurablePrimary:
		r.at(key+".replicas", "goes not together with durability primary, which asks none")
	}
	if c.PoolSize <= 0 {
		r.at(key+".pool_size", "want 1 or more, got %d", c.PoolSize)
	}
	r.validateJournal(key+".journal", &c.Journal)
}

func (r *report) validateJournal(key string, j *Journal) {
	if j.Window < time.Minute {
		r.at(key+".window", "want a minute or more, got %s", j.Window)
	}
	if j.Entries < 1000 {
		r.at(key+".entries", "want 1000 or more, got %d", j.Entries)
	}
}

func (r *report) oneSource(key, file, variable string) {
	if file != "" && variable != "" {
		r.at(key+"_env", "there is %s_file too; give one of them", key)
	}
}
