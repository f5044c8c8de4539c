package redis

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/secret"
)

// Access holds the credentials of a client and the TLS settings by which it
// verifies servers. The zero value has no credentials and no TLS.
type Access struct {
	Username string // for an ACL user; empty: the default user
	Password secret.Bytes

	// The same for the Sentinels.
	SentinelUsername string
	SentinelPassword secret.Bytes

	TLS *tls.Config // nil: no TLS
}

// SetAccess replaces passwords, certificates and authorities. Connections that
// are made later use the new ones; those that exist go on as they are, which
// servers allow after a change of passwords. Where a server closes them, commands
// are repeated on new ones.
func (r *Store) SetAccess(a Access) { r.cfg.access.Store(&a) }

// credentials returns the user and the password for a new connection.
func (cfg *Config) credentials(context.Context) (username, password string, err error) {
	a := cfg.access.Load()
	return a.Username, string(a.Password), nil
}

// failoverName is the address that go-redis gives the primary that Sentinels
// watch over. A Sentinel has its own.
const failoverName = "Redis<FailoverClient "

// isSentinel reports whether a new connection of a client that has a MasterName
// leads to a Sentinel.
func isSentinel(cn *redis.Conn) bool { return !strings.HasPrefix(cn.String(), failoverName) }

// logInToSentinel authenticates a new connection to a Sentinel. Unlike those of
// primaries, go-redis takes its credentials only once, with the client's options.
func (a *Access) logInToSentinel(ctx context.Context, cn *redis.Conn) error {
	if len(a.SentinelPassword) == 0 {
		return nil
	}
	args := []any{"auth", string(a.SentinelPassword)}
	if a.SentinelUsername != "" {
		args = []any{"auth", a.SentinelUsername, string(a.SentinelPassword)}
	}
	cmd := redis.NewStatusCmd(ctx, args...)
	if err := cn.Process(ctx, cmd); err != nil {
		return fmt.Errorf("authenticate to sentinel: %w", err)
	}
	return nil
}
