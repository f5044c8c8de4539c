package redis

import (
	"context"
	"crypto/sha1"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/limits"
	"github.com/discharger/discharger/discharger/store/record"
	"github.com/discharger/discharger/discharger/store/redis/keys"
)

//go:embed *.lua
var scripts embed.FS

var (
	swapScript           = newScript("swap.lua")
	swapHomeserverScript = newScript("feed_append.lua", "swap_homeserver.lua")
	feedPublishScript    = newScript("feed_append.lua", "feed_publish.lua")
	feedReadScript       = newScript("feed_read.lua")
	beatScript           = newScript("beat.lua")
)

// script is called by its digest, and sent in full to a server that does not
// have it: servers forget scripts when they restart.
type script struct{ text, digest string }

// newScript joins embedded files.
func newScript(files ...string) script {
	var text []byte
	for _, name := range files {
		part, err := scripts.ReadFile(name)
		if err != nil {
			panic(err)
		}
		text = append(text, part...)
	}
	sum := sha1.Sum(text)
	return script{string(text), hex.EncodeToString(sum[:])}
}

// Replies of the scripts.
const (
	swapDone = 1
	swapNot  = 0
	swapLost = -1
)

// call is one call of a script, with the keys of one hash tag.
type call struct {
	script        script
	key, identity string
	more          []string
	args          []any
}

func (c call) command(ctx context.Context, full bool) *redis.Cmd {
	args := make([]any, 0, 5+len(c.more)+len(c.args))
	if full {
		args = append(args, "eval", c.script.text)
	} else {
		args = append(args, "evalsha", c.script.digest)
	}
	args = append(args, 2+len(c.more), c.key, c.identity)
	for _, key := range c.more {
		args = append(args, key)
	}
	return redis.NewCmd(ctx, append(args, c.args...)...)
}

// Swap makes all changes of a write or none. A revocation is acknowledged when
// it has the configured durability.
func (r *Store) Swap(ctx context.Context, w store.Write) (done bool, err error) {
	defer wrap(&err, "swap")
	events, err := revocation.Lines(w.Revocations)
	if err := errors.Join(err, limits.CheckWrite(w), r.opened()); err != nil {
		return false, err
	}
	key, bucket := r.layout.User(w.User.Homeserver, w.User.User)
	c := call{script: swapScript, key: key, identity: r.layout.Identity[bucket], args: make([]any, 0, 3+4*len(w.Changes))}
	entries := revocation.Journaled(w.Revocations)
	revokes := len(entries) > 0
	c.args = append(c.args, *r.id.Load(), r.clock(), revokes)
	for _, change := range w.Changes {
		first := keys.UserField
		switch {
		case change.Session != caveat.SessionID{}:
			first = string(change.Session[:])
		case change.Device != revocation.DeviceTag{}:
			first = keys.Device(change.Device)
		}
		// As strings: the command can be in flight when the caller uses the bytes again.
		c.args = append(c.args, first, string(change.Old), string(change.New),
			string(record.ExpiryOf(change.Expires).Append(nil)))
	}
	done, err = r.revoke(ctx, entries, func() (bool, error) {
		return r.swap(ctx, c, revokes)
	})
	if err == nil && done {
		err = r.publish(ctx, w.User.Homeserver, events, true)
	}
	return done && err == nil, err
}

// SwapHomeserver replaces a homeserver's record. It returns true after every
// process has stopped using the old one, which takes a second.
func (r *Store) SwapHomeserver(ctx context.Context, homeserver string, old, new []byte, revocations ...revocation.Revocation) (done bool, err error) {
	defer wrap(&err, "swap record of homeserver")
	events, err := revocation.Lines(revocations)
	if err := errors.Join(err, limits.CheckHomeserverSwap(homeserver, old, new), r.opened()); err != nil {
		return false, err
	}
	c := r.homeserverCall(homeserver, old, new, events)
	done, err = r.revoke(ctx, revocation.Journaled(revocations), func() (bool, error) {
		return r.swap(ctx, c, true)
	})
	switch {
	case err == nil && done:
		err = r.outliveCaches(ctx)
	case err == nil:
		r.cache.clear() // a lost race means that a record is outdated
	}
	return done && err == nil, err
}

func (r *Store) homeserverCall(homeserver string, old, new []byte, events []revocation.Line) call {
	key, bucket := r.layout.Homeserver(homeserver)
	feed, lost, _ := r.layout.Feed(homeserver)
	args := []any{*r.id.Load(), string(old), string(new), r.cfg.MaxEvents}
	return call{
		script: swapHomeserverScript, key: key, identity: r.layout.Identity[bucket], more: []string{feed, lost},
		args: appendEvents(args, events),
	}
}

// outliveCaches waits until no process uses an old record of a homeserver: a
// twentieth longer than a cache, for clocks of different speed.
func (r *Store) outliveCaches(ctx context.Context) error {
	return r.cfg.wait(ctx, longestCache+longestCache/20)
}

// swap calls a script that writes.
func (r *Store) swap(ctx context.Context, c call, durable bool) (bool, error) {
	if err := r.usable(ctx, nil); err != nil {
		return false, err
	}
	var answer *redis.Cmd
	var err error
	if durable && r.cfg.Durability != DurabilityPrimary {
		answer, err = r.runDurably(ctx, c)
	} else {
		answer, err = r.ask(ctx, c)
	}
	if err != nil {
		return false, err
	}
	n, err := answer.Int64()
	if err != nil {
		return false, err
	}
	switch n {
	case swapDone:
		return true, nil
	case swapNot:
		return false, nil
	case swapLost:
		return false, r.markLost()
	}
	return false, fmt.Errorf("script answered %d", n)
}

// ask calls a script in one round trip, or in two if the server does not have it.
func (r *Store) ask(ctx context.Context, c call) (*redis.Cmd, error) {
	cmd := c.command(ctx, false)
	if err := r.client.Do(ctx, cmd); err != nil {
		return nil, err
	}
	if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
		cmd = c.command(ctx, true)
		if err := r.client.Do(ctx, cmd); err != nil {
			return nil, err
		}
	}
	return cmd, nil
}
