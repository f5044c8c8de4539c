package bolt_test

import (
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/storetest"
)

func TestBoltFeedBound(t *testing.T) {
	t.Parallel()
	c := storetest.NewClock()
	b := openBolt(t, bolt.Config{Path: t.TempDir() + "/store.db", MaxEvents: 3}.WithClock(c.Now))
	storetest.FeedBound(t, &storetest.Fixture{Store: b, Clock: c}, func(at time.Time) { c.Advance(at.Sub(c.Now())) })
}

// TestBoltFeedRestored opens a copy from before: a number that was given out
// again is no position of the other event.
func TestBoltFeedRestored(t *testing.T) {
	t.Parallel()
	f := boltFixture(t)
	u := storetest.NewUser()
	f.MustPublish(t, u.Homeserver, f.Events("1", "2")...)
	at := f.ExpectFeed(t, u.Homeserver, "", false, "1", "2")[1].Position
	f.Store.(*bolt.Store).TakeBack(t, u.Homeserver)
	f.ExpectFeed(t, u.Homeserver, at, true, "1")
	f.MustPublish(t, u.Homeserver, f.Events("another 2", "3")...)
	f.ExpectFeed(t, u.Homeserver, at, true, "1", "another 2", "3")
}
