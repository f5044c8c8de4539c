package redis_test

import (
	"testing"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// TestRedisSentinelUser uses a user of the Sentinels with only the documented
// permissions.
func TestRedisSentinelUser(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	for _, w := range s.Sentinels {
		w.Do(t, "acl", "setuser", "asker", "on", ">secret", "&*", "+role", "+info", "+ping", "+sentinel", "+subscribe")
	}
	cfg := sentinelConfig(s)
	cfg.SentinelUsername, cfg.SentinelPassword = "asker", secret.Bytes("secret")
	cfg.Journal = storetest.OpenJournal(t, journal.Config{})
	f := &storetest.Fixture{Store: OpenRedis(t, cfg), Clock: storetest.NewClock()}
	u, id := storetest.NewUser(), storetest.NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: storetest.Live(t, 0)})
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
