package redis_test

import (
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// logLines takes a log line by line.
type logLines chan string

func (l logLines) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default: // the test has ended
	}
	return len(p), nil
}

func (l logLines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// await returns the next line with a text.
func (l logLines) await(t testing.TB, text string) string {
	t.Helper()
	for {
		select {
		case line := <-l:
			if strings.Contains(line, text) {
				return line
			}
		case <-t.Context().Done():
			t.Fatalf("no line with %q", text)
		}
	}
}

const openedLine = "redis is usable, store is open"

// expectPending calls every method of a store that waits for its servers.
func expectPending(t testing.TB, r *redis.Store, want string) {
	t.Helper()
	u, id := storetest.NewUser(), storetest.NewSession()
	_, errLoad := r.Load(t.Context(), u, id, revocation.DeviceTag{})
	_, errList := r.List(t.Context(), u)
	ok1, errSwap := r.Swap(t.Context(), storetest.One(u, store.Change{Session: id, New: []byte("a")}))
	ok2, errHome := r.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("a"))
	_, errNow := r.Now(t.Context())
	_, errRead := r.ReadFeed(t.Context(), u.Homeserver, "")
	errPublish := r.Publish(t.Context(), u.Homeserver, storetest.Event("x", time.Now().Add(time.Hour)))
	if ok1 || ok2 {
		t.Error("a swap was done")
	}
	for method, err := range map[string]error{
		"Load": errLoad, "List": errList, "Swap": errSwap, "SwapHomeserver": errHome, "Now": errNow, "ReadFeed": errRead,
		"AwaitFeed": r.AwaitFeed(t.Context(), u.Homeserver, ""), "Publish": errPublish, "Ready": r.Ready(t.Context()),
	} {
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, store.ErrLost) {
			t.Errorf("%s: %v, want an error with %q", method, err, want)
		}
	}
}

// late returns the configuration of a store that waits for a server which is
// stopped.
func late(t testing.TB) (*redisServer, redis.Config, logLines) {
	s := StartRedis(t)
	s.Kill(t)
	log := make(logLines, 1000)
	cfg := s.Config()
	cfg.AwaitServers, cfg.Log = true, log.logger()
	return s, cfg, log
}

// A store whose server comes later answers errors until then, and opens by
// itself.
func TestRedisLate(t *testing.T) {
	t.Parallel()
	s, cfg, log := late(t)
	r := OpenRedis(t, cfg)
	line := log.await(t, "redis does not answer, retrying")
	if !strings.Contains(line, "level=WARN") || !strings.Contains(line, s.Socket) {
		t.Errorf("the log is %s", line)
	}
	expectPending(t, r, "waiting for redis at "+s.Socket)
	s.Restart(t)
	log.await(t, openedLine)
	if err := r.Ready(t.Context()); err != nil {
		t.Errorf("Ready: %v", err)
	}
	u, id := storetest.NewUser(), storetest.NewSession()
	if ok, err := r.Swap(t.Context(), storetest.One(u, store.Change{Session: id, New: []byte("a")})); !ok || err != nil {
		t.Errorf("Swap: %v, %v", ok, err)
	}
}

// Sentinels and nodes of a cluster that do not answer are waited for like a server.
func TestRedisLateMany(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*redis.Config){
		"sentinel": func(c *redis.Config) { c.MasterName = "m" },
		"cluster":  func(c *redis.Config) { c.Cluster = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, cfg, log := late(t)
			cfg.Addrs = []string{unusedAddress(t), unusedAddress(t)}
			change(&cfg)
			r := OpenRedis(t, cfg)
			log.await(t, "redis does not answer, retrying")
			expectPending(t, r, "waiting for redis at "+cfg.Addrs[0]+", "+cfg.Addrs[1])
		})
	}
}

// unusedAddress returns an address at which nothing listens.
func unusedAddress(t *testing.T) string {
	host, port := redistest.Address(t)
	return net.JoinHostPort(host, port)
}

// Servers that must be set up otherwise are waited for too, with an error in the
// log that names the setting and no secret.
func TestRedisLateSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, want string
		args       []string
		mend       []any
	}{
		{"eviction", "set maxmemory-policy to noeviction", []string{"--maxmemory-policy", "allkeys-lru"},
			[]any{"config", "set", "maxmemory-policy", "noeviction"}},
		{"password", "WRONGPASS", nil, []any{"acl", "setuser", "discharger", "on", ">opensesame", "~*", "&*", "+@all"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, cfg, log := late(t)
			if c.name == "password" {
				cfg.Username, cfg.Password = "discharger", secret.Bytes("opensesame")
			}
			s.Restart(t, c.args...)
			r := OpenRedis(t, cfg)
			line := log.await(t, "redis is unsuitable")
			if !strings.Contains(line, "level=ERROR") || !strings.Contains(line, c.want) || strings.Contains(line, "opensesame") {
				t.Errorf("the log is %s", line)
			}
			expectPending(t, r, c.want)
			s.Do(t, c.mend...)
			log.await(t, openedLine)
			if err := r.Ready(t.Context()); err != nil {
				t.Errorf("Ready: %v", err)
			}
		})
	}
}

// The journal is replayed, and a loss is detected, before the first method
// returns.
func TestRedisLateLoss(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	marker := new(storetest.Memory)
	cfg := s.Config()
	cfg.Marker = marker
	r := OpenRedis(t, cfg)
	u, id := storetest.NewUser(), storetest.NewSession()
	if ok, err := r.Swap(t.Context(), storetest.One(u, store.Change{Session: id, New: []byte("a")})); !ok || err != nil {
		t.Fatalf("Swap: %v, %v", ok, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	s.Kill(t) // which loses everything
	log := make(logLines, 1000)
	cfg.AwaitServers, cfg.Log = true, log.logger()
	cfg.Journal = storetest.OpenJournal(t, journal.Config{})
	lost := OpenRedis(t, cfg)
	s.Restart(t)
	log.await(t, "level=ERROR msg=\"store has lost its data")
	log.await(t, openedLine)
	_, loadErr := lost.Load(t.Context(), u, id, revocation.DeviceTag{})
	for _, err := range []error{loadErr, lost.Ready(t.Context())} {
		if !errors.Is(err, store.ErrLost) {
			t.Errorf("the server lost its data: %v", err)
		}
	}
	if err := lost.Close(); err != nil {
		t.Fatal(err)
	}

	s.Kill(t)
	accepted := OpenRedis(t, cfg)
	if err := accepted.AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPending(t, accepted, "waiting for redis")
	s.Restart(t)
	log.await(t, openedLine)
	if err := accepted.Ready(t.Context()); err != nil {
		t.Errorf("Ready after the loss was accepted: %v", err)
	}
	view, err := accepted.Load(t.Context(), u, id, revocation.DeviceTag{})
	if err != nil || view.Session != nil || view.Losses.Missing == 0 {
		t.Errorf("Load after the loss was accepted: %+v, %v", view, err)
	}
}

// The journal is replayed to a server that comes late with older data.
func TestRedisLateReplay(t *testing.T) {
	t.Parallel()
	host, port := redistest.Address(t)
	s := StartRedis(t, "--bind", host, "--port", port)
	j := storetest.OpenJournal(t, journal.Config{})
	cfg := s.Config()
	cfg.Marker, cfg.Journal = new(storetest.Memory), j
	first := OpenRedis(t, cfg)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	s.Do(t, "save") // before the revocation
	if err := j.Add(t.Context(), storetest.EntryOf(1)); err != nil {
		t.Fatal(err)
	}
	s.Kill(t)
	log := make(logLines, 1000)
	cfg.AwaitServers, cfg.Log = true, log.logger()
	r := OpenRedis(t, cfg)
	expectPending(t, r, "waiting for redis")
	s.Restart(t)
	log.await(t, openedLine)
	if n := r.JournalStats().Replays; n == 0 {
		t.Error("the store is open, and the journal was not replayed")
	}
}

// A store that waits can be closed.
func TestRedisLateClose(t *testing.T) {
	t.Parallel()
	_, cfg, log := late(t)
	cfg.Journal = storetest.OpenJournal(t, journal.Config{})
	r := OpenRedis(t, cfg)
	log.await(t, "does not answer, retrying")
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
