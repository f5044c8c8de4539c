package redis

import (
	"context"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redis/keys"
)

// UserHash is the key of a user's hash.
func UserHash(key secret.Bytes, u store.UserKey) string {
	k, _ := keys.New(key).User(u.Homeserver, u.User)
	return k
}

// FeedKey is the key of a homeserver's feed.
func FeedKey(key secret.Bytes, homeserver string) string {
	k, _, _ := keys.New(key).Feed(homeserver)
	return k
}

// HomeserverKey is the key of a homeserver's record.
func HomeserverKey(key secret.Bytes, name string) string {
	k, _ := keys.New(key).Homeserver(name)
	return k
}

// IdentityKeys are the keys of the store's identity.
func IdentityKeys(key secret.Bytes) []string { return keys.New(key).Identity[:] }

// SetWait replaces the wait for caches of other processes.
func (cfg *Config) SetWait(wait func(context.Context, time.Duration) error) { cfg.wait = wait }

// Wait waits as a store does by default.
func Wait(ctx context.Context, d time.Duration) error { return wait(ctx, d) }

// PeersKey is the key of the stream of revocations.
func PeersKey(key secret.Bytes) string { return keys.New(key).Stream }

// Tell publishes revocations that were never made in the store.
func (r *Store) Tell(ctx context.Context, entries ...revocation.Revocation) error {
	return r.stream.publish(ctx, entries)
}

// BeatKey is the key of the heartbeats of a store that is not in a cluster.
func BeatKey(key secret.Bytes) string { return keys.New(key).Beats[0] }

// StopWatch ends the checks of the servers, whose commands a test would count.
func (r *Store) StopWatch() {
	r.stop()
	r.tasks.Wait()
}
