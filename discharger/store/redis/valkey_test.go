package redis_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

func startValkey(t testing.TB, args ...string) *redisServer {
	t.Helper()
	s := &redisServer{Server: redistest.StartValkey(t, args...)}
	s.raw = s.Connect(t)
	return s
}

// TestValkeyConformance holds Valkey to the same, with revocations on disk.
func TestValkeyConformance(t *testing.T) {
	t.Parallel()
	s := startValkey(t, "--appendonly", "yes", "--appendfsync", "always")
	cfg := s.Config()
	cfg.Durability = redis.DurabilityDisk
	storetest.Run(t, redisFixture(cfg, func(t testing.TB, key string) int {
		return int(s.raw.HLen(t.Context(), key).Val())
	}))
}

// TestValkeyDisk kills a server that would sync its file within a second, right
// after a revocation was acknowledged. Acknowledged means that it did.
func TestValkeyDisk(t *testing.T) {
	t.Parallel()
	s := startValkey(t, "--appendonly", "yes", "--appendfsync", "everysec")
	f := newRedisFixture(t, s, func(c *redis.Config) {
		c.Durability = redis.DurabilityDisk
		c.SetWait(func(context.Context, time.Duration) error { return nil })
	})
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("live")})
	s.Do(t, "config", "resetstat")
	w := store.Write{User: u, Revocations: storetest.Ending(t, u, id), Changes: []store.Change{{Session: id, Old: []byte("live"), New: []byte("dead")}}}
	if ok, err := f.Swap(t.Context(), w); !ok || err != nil {
		t.Fatalf("revoke: %v, %v", ok, err)
	}
	if ok, err := f.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("generation")); !ok || err != nil {
		t.Fatalf("revoke all: %v, %v", ok, err)
	}
	if n := s.Calls(t)["waitaof"]; n < 2 {
		t.Errorf("the server ran WAITAOF %d times", n)
	}
	s.crash(t)
	redistest.Eventually(t, "the server has its data", func() bool {
		_, err := f.Load(t.Context(), u, id, revocation.DeviceTag{})
		return err == nil
	})
	f.Expect(t, u, id, "dead", "")
	if v := f.MustLoad(t, u, id); string(v.Homeserver) != "generation" {
		t.Errorf("the homeserver's record is %q", v.Homeserver)
	}
}

// TestValkeyDiskReplica requires the disk of a replica too, and returns an
// error when the replica is gone.
func TestValkeyDiskReplica(t *testing.T) {
	t.Parallel()
	host, port := redistest.Address(t)
	s := startValkey(t, "--port", port, "--bind", host, "--repl-diskless-sync-delay", "0", "--appendonly", "yes")
	replica := startValkey(t, "--replicaof", host, port, "--appendonly", "yes")
	redistest.Eventually(t, "the replica is linked", func() bool {
		return replica.Info(t, "replication")["master_link_status"] == "up" &&
			strings.Contains(s.Do(t, "info", "replication").(string), "state=online")
	})
	cfg := s.Config()
	cfg.Durability, cfg.Replicas = redis.DurabilityDisk, 1
	f := openEventually(t, cfg) // when the replica has its file in order
	cfg.ReadTimeout = 4 * time.Second
	hasty := openEventually(t, cfg)
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("live")})
	w := store.Write{User: u, Revocations: storetest.Ending(t, u, id), Changes: []store.Change{{Session: id, Old: []byte("live"), New: []byte("dead")}}}
	if ok, err := f.Swap(t.Context(), w); !ok || err != nil {
		t.Fatalf("revoke: %v, %v", ok, err)
	}
	replica.pause(t)
	w.User = storetest.NewUser()
	f.MustSwap(t, true, w.User, store.Change{Session: id, New: []byte("live")})
	redistest.Eventually(t, "the primary has it on its disk, and the replica has not", func() bool {
		ok, err := hasty.Swap(t.Context(), w)
		if ok || err == nil {
			t.Fatalf("revoked without the replica: %v, %v", ok, err)
		}
		return strings.Contains(err.Error(), "0 of 1 replicas")
	})
	replica.resume(t)
}

// TestValkeyRefuses a server that keeps no file to write to.
func TestValkeyRefuses(t *testing.T) {
	t.Parallel()
	cfg := startValkey(t).Config()
	cfg.Durability = redis.DurabilityDisk
	r, err := redis.Open(t.Context(), cfg)
	if err == nil {
		r.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "appendonly yes") {
		t.Errorf("opened: %v", err)
	}
}
