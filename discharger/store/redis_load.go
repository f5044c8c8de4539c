package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
)

// Load reads a session's record, its user's and its homeserver's. Only if
// there is no session does it ask a second time, whether the data is there at
// all.
func (r *Redis) Load(ctx context.Context, user discharger.UserKey, session caveat.SessionID) (discharger.View, error) {
	v, err := r.load(ctx, user, session)
	if err != nil {
		return discharger.View{}, fmt.Errorf("load session: %w", err)
	}
	return v, nil
}

func (r *Redis) load(ctx context.Context, user discharger.UserKey, session caveat.SessionID) (v discharger.View, err error) {
	if err := checkUser(user); err != nil {
		return v, err
	}
	if err := r.usable(ctx); err != nil {
		return v, err
	}
	now := r.cfg.Now()
	key, storeID := r.layout.user(user.Homeserver, user.User)
	first, short, long := sessionFields(session)
	fields := redis.NewSliceCmd(ctx, "hmget", key, first, short, long, userField, userSecond)
	homeserver, known := r.cache.get(user.Homeserver, now, r.cfg.CacheHomeserver)
	if known {
		err = r.client.do(ctx, fields)
	} else {
		homeserver, err = r.askHomeserver(ctx, user.Homeserver, now, fields)
	}
	if err != nil {
		return v, err
	}
	got, err := fields.Result()
	if err != nil {
		return v, err
	}
	if len(got) != 5 {
		return v, fmt.Errorf("redis answered with %d values instead of 5", len(got))
	}
	v.Homeserver = homeserver
	if v.User, _, err = join(got[3], got[4], got[4]); err != nil {
		return discharger.View{}, err
	}
	record, e, err := join(got[0], got[1], got[2])
	if err != nil {
		return discharger.View{}, err
	}
	if record != nil && !e.passed(now) {
		v.Session = record
		return v, nil
	}
	return v, r.confirm(ctx, storeID)
}

// askHomeserver reads a homeserver's record and whether the data around it is
// there, together with other commands.
func (r *Redis) askHomeserver(ctx context.Context, name string, asked time.Time, with ...redis.Cmder) ([]byte, error) {
	key, storeID := r.layout.homeserver(name)
	record, id := redis.NewStringCmd(ctx, "get", key), redis.NewStringCmd(ctx, "get", storeID)
	if err := r.client.do(ctx, append(with, record, id)...); err != nil {
		return nil, err
	}
	if err := r.judge(id); err != nil {
		return nil, err
	}
	b, err := record.Bytes()
	if errors.Is(err, redis.Nil) {
		b, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	if b != nil && len(b) == 0 {
		return nil, errDamaged
	}
	r.cache.put(name, b, asked)
	return b, nil
}

// List reads a user's record and all of the user's sessions.
func (r *Redis) List(ctx context.Context, user discharger.UserKey) (discharger.Listing, error) {
	l, err := r.list(ctx, user)
	if err != nil {
		return discharger.Listing{}, fmt.Errorf("list sessions: %w", err)
	}
	return l, nil
}

func (r *Redis) list(ctx context.Context, user discharger.UserKey) (l discharger.Listing, err error) {
	if err := checkUser(user); err != nil {
		return l, err
	}
	if err := r.usable(ctx); err != nil {
		return l, err
	}
	now := r.cfg.Now()
	key, storeID := r.layout.user(user.Homeserver, user.User)
	fields := redis.NewMapStringStringCmd(ctx, "hgetall", key)
	if err := r.client.do(ctx, fields); err != nil {
		return l, err
	}
	got, err := fields.Result()
	if err != nil {
		return l, err
	}
	if l, err = joinAll(got, now); err != nil {
		return discharger.Listing{}, err
	}
	if len(l.Sessions) == 0 {
		return l, r.confirm(ctx, storeID)
	}
	return l, nil
}

// joinAll puts all records of a hash together. Every field must be part of
// one.
func joinAll(fields map[string]string, now time.Time) (discharger.Listing, error) {
	piece := func(name string) any {
		if v, ok := fields[name]; ok {
			return v
		}
		return nil
	}
	l := discharger.Listing{Sessions: make(map[caveat.SessionID][]byte)}
	pieces := 0
	for name, head := range fields {
		var id caveat.SessionID
		short, long := userSecond, userSecond
		if len(name) == len(id) {
			id = caveat.SessionID([]byte(name))
			_, short, long = sessionFields(id)
		} else if name != userField {
			continue
		}
		record, e, err := join(head, piece(short), piece(long))
		if err != nil {
			return discharger.Listing{}, err
		}
		if pieces++; head[expirySize] != 0 {
			pieces++
		}
		if name == userField {
			l.User = record
		} else if !e.passed(now) {
			l.Sessions[id] = record
		}
	}
	if pieces != len(fields) {
		return discharger.Listing{}, errDamaged
	}
	return l, nil
}

// longestCache is how long any process may use a homeserver's record without
// asking again. It is the same for all, whatever they are configured to, since
// none knows the others' configuration.
const longestCache = time.Second

// homeserverCache keeps records of homeservers, of which there are few.
type homeserverCache struct {
	mu      sync.RWMutex
	entries map[string]cachedHomeserver
}

type cachedHomeserver struct {
	record []byte
	asked  time.Time
}

// get returns a record that is not older than lease. A machine that slept has
// its monotonic clock stopped, and one whose clock was set has its wall clock
// wrong: both must agree.
func (c *homeserverCache) get(name string, now time.Time, lease time.Duration) ([]byte, bool) {
	c.mu.RLock()
	e, ok := c.entries[name]
	c.mu.RUnlock()
	if !ok {
		return nil, false
	}
	mono, wall := now.Sub(e.asked), now.Round(0).Sub(e.asked.Round(0))
	if min(mono, wall) < 0 || max(mono, wall) >= lease {
		return nil, false
	}
	return bytes.Clone(e.record), true
}

// drop forgets a record.
func (c *homeserverCache) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, name)
}

// put keeps a record that was asked for at some time, unless a later question
// has been answered already.
func (c *homeserverCache) put(name string, record []byte, asked time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[name]; ok && e.asked.After(asked) && e.asked.Round(0).After(asked.Round(0)) {
		return
	}
	if c.entries == nil {
		c.entries = make(map[string]cachedHomeserver)
	}
	c.entries[name] = cachedHomeserver{bytes.Clone(record), asked}
}
