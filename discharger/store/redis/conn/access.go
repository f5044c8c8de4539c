package conn

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/secret"
)

// Access holds the credentials of a client and its TLS settings. The zero value
// has neither.
type Access struct {
	Username string // an ACL user; empty: the default user
	Password secret.Bytes

	// For Sentinels.
	SentinelUsername string
	SentinelPassword secret.Bytes

	TLS *tls.Config // nil: no TLS
}

// credentials returns the user and the password for a new connection.
func (cfg *Config) credentials(context.Context) (username, password string, err error) {
	a := cfg.Access.Load()
	return a.Username, string(a.Password), nil
}

// failoverName is the address that go-redis gives to a primary that Sentinels
// watch. A Sentinel has its own.
const failoverName = "Redis<FailoverClient "

// isSentinel reports whether a new connection of a client with a MasterName leads
// to a Sentinel.
func isSentinel(cn *redis.Conn) bool { return !strings.HasPrefix(cn.String(), failoverName) }

// logInToSentinel authenticates a new connection to a Sentinel. go-redis reads the
// credentials for Sentinels only once, from the client's options.
func (a *Access) logInToSentinel(ctx context.Context, cn *redis.Conn) error {
	if len(a.SentinelPassword) == 0 {
		return nil
	}
	args := []any{"auth", string(a.SentinelPassword)}
	if a.SentinelUsername != "" {
		args = []any{"auth", a.SentinelUsername, string(a.SentinelPassword)}
	}
	if err := cn.Process(ctx, redis.NewStatusCmd(ctx, args...)); err != nil {
		return fmt.Errorf("authenticate to sentinel: %w", err)
	}
	return nil
}
