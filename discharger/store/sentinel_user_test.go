package store_test

import (
	"testing"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redistest"
)

// TestRedisSentinelUser asks the Sentinels as a user who may do no more than
// the README says.
func TestRedisSentinelUser(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	for _, w := range s.Sentinels {
		w.Do(t, "acl", "setuser", "asker", "on", ">secret", "&*", "+role", "+info", "+ping", "+sentinel", "+subscribe")
	}
	cfg := sentinelConfig(s)
	cfg.SentinelUsername, cfg.SentinelPassword = "asker", caveat.Secret("secret")
	cfg.Journal = openJournal(t, store.JournalConfig{})
	f := &fixture{Store: openRedis(t, cfg), clock: newClock()}
	u, id := someone(), newSession()
	f.swap(t, true, u, discharger.Change{Session: id, New: live(t, 0)})
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
