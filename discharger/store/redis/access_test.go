package redis_test

import (
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redis/conn"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// addUser makes an ACL user with a password and the permissions of a store.
func addUser(t *testing.T, s *redistest.Server, name, password string, more ...any) {
	t.Helper()
	user := append([]any{"acl", "setuser", name, "on", "resetpass", ">" + password, "~ds{*"}, more...)
	for _, command := range strings.Fields(redistest.Commands + " " + redistest.Checks) {
		user = append(user, command)
	}
	s.Do(t, user...)
}

// goesOn waits for a load by a connection that is there already. While the store
// uses it for a check of its own, a load makes another one, and is not let in.
func goesOn(t *testing.T, f *storetest.Fixture, u store.UserKey, id caveat.SessionID) {
	t.Helper()
	redistest.Eventually(t, "a connection goes on", func() bool {
		_, err := f.Load(t.Context(), u, id, revocation.DeviceTag{})
		return err == nil
	})
}

// TestRedisPassword: with a password that was replaced, connections go on, and
// when the server ends them others are made with the new one, without an error.
func TestRedisPassword(t *testing.T) {
	t.Parallel()
	for _, journaled := range []bool{false, true} {
		name := map[bool]string{false: "plain", true: "journal"}[journaled]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			addUser(t, s, "discharger", "old")
			cfg := patient(redis.Config{Addrs: []string{s.Socket}})
			cfg.Username, cfg.Password = "discharger", secret.Bytes("old")
			if journaled {
				cfg.Journal = storetest.OpenJournal(t, journal.Config{})
			}
			r := OpenRedis(t, cfg)
			f := &storetest.Fixture{Store: r, Clock: storetest.NewClock()}
			u, id := storetest.NewUser(), storetest.NewSession()
			f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})

			addUser(t, s, "discharger", "new")
			goesOn(t, f, u, id)
			r.SetAccess(conn.Access{Username: "discharger", Password: secret.Bytes("new")})
			f.Expect(t, u, id, "a", "")
			if n := s.Do(t, "client", "kill", "user", "discharger"); n == int64(0) {
				t.Fatal("there was no connection")
			}
			f.Expect(t, u, id, "a", "")
			f.MustSwap(t, true, u, store.Change{Session: storetest.NewSession(), New: []byte("b")})
			if journaled {
				if err := r.Ready(t.Context()); err != nil {
					t.Errorf("not ready: %v", err)
				}
			}
		})
	}
}

// TestRedisWrongPassword: a wrong password harms nothing before a connection has
// to be made, and the right one mends it.
func TestRedisWrongPassword(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	addUser(t, s, "discharger", "right")
	cfg := patient(redis.Config{Addrs: []string{s.Socket}})
	cfg.Username, cfg.Password = "discharger", secret.Bytes("right")
	r := OpenRedis(t, cfg)
	f := &storetest.Fixture{Store: r, Clock: storetest.NewClock()}
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})
	wrong := cfg.Access
	wrong.Password = secret.Bytes("wrong")
	r.SetAccess(wrong)
	goesOn(t, f, u, id)
	s.Do(t, "client", "kill", "user", "discharger")
	if _, err := f.Load(t.Context(), u, id, revocation.DeviceTag{}); err == nil {
		t.Error("let in with a wrong password")
	}
	r.SetAccess(cfg.Access)
	f.Expect(t, u, id, "a", "")
}

// TestRedisPasswordAtOpen: a store that waits for its server, since that does not
// let it in, opens with the right password.
func TestRedisPasswordAtOpen(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	addUser(t, s, "discharger", "right")
	cfg := patient(redis.Config{Addrs: []string{s.Socket}, AwaitServers: true})
	cfg.Username, cfg.Password = "discharger", secret.Bytes("wrong")
	r := OpenRedis(t, cfg)
	if err := r.Ready(t.Context()); err == nil {
		t.Fatal("let in with a wrong password")
	}
	r.SetAccess(conn.Access{Username: "discharger", Password: secret.Bytes("right")})
	redistest.Eventually(t, "the store is open", func() bool { return r.Ready(t.Context()) == nil })
	f := &storetest.Fixture{Store: r, Clock: storetest.NewClock()}
	f.MustSwap(t, true, storetest.NewUser(), store.Change{Session: storetest.NewSession(), New: []byte("a")})
}

// TestRedisRenewed: the server has another certificate, and demands another of
// its clients.
func TestRedisRenewed(t *testing.T) {
	t.Parallel()
	s := redistest.StartSecure(t)
	cfg := patient(redis.Config{Addrs: []string{s.Addr}})
	cfg.Access = conn.Access{TLS: s.TLS(), Username: s.User, Password: secret.Bytes(s.Password)}
	r := OpenRedis(t, cfg)
	f := &storetest.Fixture{Store: r, Clock: storetest.NewClock()}
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})

	s.Renew(t)
	access := cfg.Access
	access.TLS = s.TLS()
	r.SetAccess(access)
	s.Do(t, "client", "kill", "user", s.User)
	f.Expect(t, u, id, "a", "")
	r.SetAccess(cfg.Access)
	s.Do(t, "client", "kill", "user", s.User)
	if _, err := f.Load(t.Context(), u, id, revocation.DeviceTag{}); err == nil {
		t.Error("the certificate from before is accepted")
	}
}

// TestRedisSentinelPassword: new passwords of the Sentinels are used where the
// primary is looked up the next time.
func TestRedisSentinelPassword(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	set := func(password string) {
		for _, w := range s.Sentinels {
			w.Do(t, "acl", "setuser", "asker", "on", "resetpass", ">"+password, "&*", "+role", "+info", "+ping", "+sentinel", "+subscribe")
		}
	}
	set("old")
	cfg := sentinelConfig(s)
	cfg.SentinelUsername, cfg.SentinelPassword = "asker", secret.Bytes("old")
	r := OpenRedis(t, cfg)
	f := &storetest.Fixture{Store: r, Clock: storetest.NewClock()}
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})

	set("new")
	access := cfg.Access
	access.SentinelPassword = secret.Bytes("new")
	r.SetAccess(access)
	for _, w := range s.Sentinels {
		w.Do(t, "client", "kill", "user", "asker")
	}
	s.Failover(t)
	redistest.Eventually(t, "the store works again", func() bool {
		_, err := f.Load(t.Context(), u, id, revocation.DeviceTag{})
		return err == nil
	})
	for _, w := range s.Sentinels {
		for _, entry := range w.Do(t, "acl", "log").([]any) {
			t.Errorf("%s forbade %v", w.Addr, entry)
		}
	}
}
