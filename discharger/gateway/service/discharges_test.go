package service

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/client"
)

// Sessions whose discharges were fetched at the same moment, at a login or after an
// outage, fetch the next ones spread over a third of the lifetime. Fetches ahead of
// need are spread already.
func TestFetchesAreSpread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // time stands still
		jitter := 0.0
		now := time.Now()
		g := &Client{cfg: Config{Caches: cache.NewBudget(1<<15, nil), Clock: func() time.Time { return now }, Jitter: func() float64 { return jitter }}}
		h, err := newDischarges(g)
		if err != nil {
			t.Fatal(err)
		}
		for _, life := range []time.Duration{time.Minute, 2 * time.Minute, 5 * time.Minute, time.Hour} {
			grant := client.Grant{Expires: now.Add(life)}
			latest := h.keep(grant, now, true).refresh
			jitter = 0
			first := h.keep(grant, now, false).refresh
			jitter = 0.999999
			last := h.keep(grant, now, false).refresh
			if early := first.Sub(now); early < life/2 {
				t.Errorf("%v: fetched again after %v", life, early)
			}
			if width := last.Sub(first); width < life/5 || last.After(latest) {
				t.Errorf("%v: spread over %v, until %v", life, width, last.Sub(now))
			}
			if ahead := now.Add(life).Sub(latest); ahead > life/4 || ahead < min(life/4, RefreshAhead) {
				t.Errorf("%v: fetched %v ahead of need", life, ahead)
			}
			if !latest.Before(h.keep(grant, now, true).until) {
				t.Errorf("%v: not ahead of need", life)
			}
		}
	})
}
