package conn

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// RefusedError is the error of a server that evicts keys, and must not be used.
type RefusedError struct{ Policy string }

// Error implements error.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("server evicts keys when its memory is full (maxmemory-policy is %.30q), "+
		"and with them revocations: set maxmemory-policy to noeviction", e.Policy)
}

// ErrNotPrimary is matched by the error of a server in another role.
var ErrNotPrimary = errors.New("server is not a primary")

// infoSource is a connection, or the client of one server.
type infoSource interface{ Pipeline() redis.Pipeliner }

// Identify returns the identity of a primary: its run id and its replication id.
// The first changes with the process, the second with a promotion. It returns ""
// for a Sentinel.
func Identify(ctx context.Context, server infoSource) (string, error) {
	pipe := server.Pipeline()
	process, replication := pipe.Info(ctx, "server"), pipe.Info(ctx, "replication")
	if _, err := pipe.Exec(ctx); err != nil {
		return "", err
	}
	s, r := ParseInfo(process.Val()), ParseInfo(replication.Val())
	if s["redis_mode"] == "sentinel" {
		return "", nil
	}
	if role := r["role"]; role != "master" {
		return "", fmt.Errorf("%w: its role is %.20q", ErrNotPrimary, role)
	}
	if s["run_id"] == "" || r["master_replid"] == "" {
		return "", errors.New("INFO has no run id or no replication id")
	}
	return s["run_id"] + " " + r["master_replid"], nil
}

// requirePrimary refuses a connection to a replica. Without permission to run ROLE
// the connection is accepted.
func requirePrimary(ctx context.Context, cn *redis.Conn) error {
	cmd := redis.NewSliceCmd(ctx, "role")
	err := cn.Process(ctx, cmd)
	if redis.HasErrorPrefix(err, "NOPERM") {
		return nil
	}
	if err != nil {
		return err
	}
	return CheckRole(cmd.Val())
}

// CheckRole returns an error for a reply to ROLE of a server that is neither a
// primary nor a Sentinel.
func CheckRole(reply []any) error {
	role := "unknown"
	if len(reply) > 0 {
		role = fmt.Sprintf("%.20v", reply[0])
	}
	if role != "master" && role != "sentinel" {
		return fmt.Errorf("server is not a primary but %q; only a primary has all revocations", role)
	}
	return nil
}

// CheckPolicy returns a [*RefusedError] for a maxmemory-policy that evicts keys.
// Servers without a policy pass: INFO of other products can lack it.
func CheckPolicy(policy string) error {
	if policy == "" || policy == "noeviction" {
		return nil
	}
	return &RefusedError{policy}
}

// checkEviction checks the maxmemory-policy of a primary on a new connection.
func checkEviction(ctx context.Context, server infoSource) error {
	pipe := server.Pipeline()
	replication, memory := pipe.Info(ctx, "replication"), pipe.Info(ctx, "memory")
	_, err := pipe.Exec(ctx)
	if redis.HasErrorPrefix(err, "NOPERM") {
		return nil
	}
	if err != nil {
		return err
	}
	if ParseInfo(replication.Val())["role"] != "master" {
		return nil
	}
	return CheckPolicy(ParseInfo(memory.Val())["maxmemory_policy"])
}

// ParseInfo returns the fields of a reply to INFO. Other lines are left out.
func ParseInfo(text string) map[string]string {
	info := make(map[string]string)
	for line := range strings.SplitSeq(text, "\n") {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\r"), ":"); ok {
			info[name] = value
		}
	}
	return info
}
