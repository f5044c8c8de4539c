package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/limits"
	"github.com/discharger/discharger/discharger/store/record"
	"github.com/discharger/discharger/discharger/store/redis/keys"
)

// Load reads the records of a session, its user, its homeserver and a device. Only
// without a session it makes a second round trip, to check that the data is there.
func (r *Store) Load(ctx context.Context, user store.UserKey, session caveat.SessionID, device revocation.DeviceTag) (v store.View, err error) {
	defer wrap(&err, "load session")
	if err := r.usable(ctx, limits.CheckUser(user)); err != nil {
		return v, err
	}
	now := r.cfg.now()
	key, bucket := r.layout.User(user.Homeserver, user.User)
	first, short, long := keys.Session(session)
	args := append(make([]any, 0, 8), "hmget", key, first, short, long, keys.UserField, keys.UserSecond)
	if device != (revocation.DeviceTag{}) {
		args = append(args, keys.Device(device))
	}
	fields := redis.NewSliceCmd(ctx, args...)
	home, known := r.cache.get(user.Homeserver, now, r.cfg.CacheHomeserver)
	if known {
		err = r.client.Do(ctx, fields)
	} else {
		home, err = r.askHomeserver(ctx, user.Homeserver, now, fields)
	}
	if err != nil {
		return v, err
	}
	got, err := fields.Result()
	if err != nil {
		return v, err
	}
	if want := len(args) - 2; len(got) != want {
		return v, fmt.Errorf("redis answered with %d values instead of %d", len(got), want)
	}
	if len(got) > 5 {
		if v.Device, _, err = keys.Join(got[5], nil, nil); err != nil {
			return v, err
		}
	}
	v.Homeserver, v.Losses.All = home.record, home.all
	if v.User, _, err = keys.Join(got[3], got[4], got[4]); err != nil {
		return v, err
	}
	rec, e, err := keys.Join(got[0], got[1], got[2])
	if err != nil {
		return v, err
	}
	if rec != nil && !e.Passed(now) {
		v.Session = rec
		return v, nil
	}
	mark, err := r.confirm(ctx, bucket)
	v.Losses.Missing = max(mark.born, mark.missing)
	return v, err
}

// home is the record of a homeserver.
type home struct {
	record []byte
	all    int64     // from when on its revocations are complete, Unix ms
	asked  time.Time // when it was requested
}

// askHomeserver reads a homeserver's record, its losses and the identity beside
// them, together with other commands.
func (r *Store) askHomeserver(ctx context.Context, name string, asked time.Time, with ...redis.Cmder) (h home, err error) {
	key, bucket := r.layout.Homeserver(name)
	raw := redis.NewStringCmd(ctx, "get", key)
	mark, err := r.confirm(ctx, bucket, append(with, raw)...)
	if err != nil {
		return home{}, err
	}
	h.all, h.asked = mark.all, asked
	h.record, err = raw.Bytes()
	if errors.Is(err, redis.Nil) {
		h.record, err = nil, nil
	}
	if err != nil {
		return home{}, err
	}
	if h.record != nil && len(h.record) == 0 {
		return home{}, record.ErrDamaged
	}
	r.cache.put(name, h)
	return h, nil
}

// Now returns the time of the primary, in a cluster of one of them.
func (r *Store) Now(ctx context.Context) (now time.Time, err error) {
	defer wrap(&err, "read time")
	if err := r.usable(ctx, nil); err != nil {
		return now, err
	}
	cmd := redis.NewTimeCmd(ctx, "time")
	if err := r.client.Do(ctx, cmd); err != nil {
		return now, err
	}
	return cmd.Result()
}

// List reads a user's record and those of the user's sessions and devices.
func (r *Store) List(ctx context.Context, user store.UserKey) (l store.Listing, err error) {
	defer wrap(&err, "list sessions")
	if err := r.usable(ctx, limits.CheckUser(user)); err != nil {
		return l, err
	}
	now := r.cfg.now()
	key, bucket := r.layout.User(user.Homeserver, user.User)
	fields := redis.NewMapStringStringCmd(ctx, "hgetall", key)
	if err := r.client.Do(ctx, fields); err != nil {
		return l, err
	}
	got, err := fields.Result()
	if err != nil {
		return l, err
	}
	if l, err = joinAll(got, now); err == nil && len(l.Sessions) == 0 {
		_, err = r.confirm(ctx, bucket)
	}
	return l, err
}

// joinAll joins all records of a hash. Every field must be part of a record.
func joinAll(fields map[string]string, now time.Time) (store.Listing, error) {
	piece := func(name string) any {
		if v, ok := fields[name]; ok {
			return v
		}
		return nil
	}
	l := store.Listing{Sessions: make(map[caveat.SessionID][]byte), Devices: make(map[revocation.DeviceTag][]byte)}
	pieces := 0
	for name, head := range fields {
		var id caveat.SessionID
		if tag, ok := keys.ParseDevice(name); ok {
			rec, _, err := keys.Join(head, nil, nil)
			if err != nil {
				return store.Listing{}, err
			}
			l.Devices[tag] = rec
			pieces++
			continue
		}
		short, long := keys.UserSecond, keys.UserSecond
		if len(name) == len(id) {
			id = caveat.SessionID([]byte(name))
			_, short, long = keys.Session(id)
		} else if name != keys.UserField {
			continue
		}
		rec, e, err := keys.Join(head, piece(short), piece(long))
		if err != nil {
			return store.Listing{}, err
		}
		if pieces++; head[record.ExpirySize] != 0 {
			pieces++
		}
		if name == keys.UserField {
			l.User = rec
		} else if !e.Passed(now) {
			l.Sessions[id] = rec
		}
	}
	if pieces != len(fields) {
		return store.Listing{}, record.ErrDamaged
	}
	return l, nil
}

// longestCache is how long any process may use the record of a homeserver. It is the same
// for all processes, since none has the configuration of the others.
const longestCache = time.Second

// homeserverCache caches records of homeservers.
type homeserverCache struct {
	mu      sync.RWMutex
	entries map[string]home
}

// get returns a record that is not older than lease by both clocks: the
// monotonic one stops while a machine sleeps, and the wall clock can be set.
func (c *homeserverCache) get(name string, now time.Time, lease time.Duration) (home, bool) {
	c.mu.RLock()
	e, ok := c.entries[name]
	c.mu.RUnlock()
	if !ok {
		return home{}, false
	}
	mono, wall := now.Sub(e.asked), now.Round(0).Sub(e.asked.Round(0))
	if min(mono, wall) < 0 || max(mono, wall) >= lease {
		return home{}, false
	}
	e.record = bytes.Clone(e.record)
	return e, true
}

// clear removes all records.
func (c *homeserverCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.entries)
}

// put caches a record, unless one that was requested later is cached.
func (c *homeserverCache) put(name string, h home) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[name]; ok && e.asked.After(h.asked) && e.asked.Round(0).After(h.asked.Round(0)) {
		return
	}
	if c.entries == nil {
		c.entries = make(map[string]home)
	}
	h.record = bytes.Clone(h.record)
	c.entries[name] = h
}
