package redis

import (
	"context"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/store"
)

// UserHash is the key of a user's hash.
func UserHash(key secret.Bytes, u store.UserKey) string {
	k, _ := newLayout(key).user(u.Homeserver, u.User)
	return k
}

// FeedKey is the key of a homeserver's feed.
func FeedKey(key secret.Bytes, homeserver string) string {
	k, _, _ := newLayout(key).feed(homeserver)
	return k
}

// HomeserverKey is the key of a homeserver's record.
func HomeserverKey(key secret.Bytes, name string) string {
	k, _ := newLayout(key).homeserver(name)
	return k
}

// IdentityKeys are the keys of the store's identity.
func IdentityKeys(key secret.Bytes) []string { return newLayout(key).storeID[:] }

// Wait waits as a store does by default.
func Wait(ctx context.Context, d time.Duration) error { return wait(ctx, d) }

// PeersKey is the key of what processes tell each other.
func PeersKey(key secret.Bytes) string { return newLayout(key).peers }

// Tell tells other processes of what was never revoked in the store.
func (r *Store) Tell(ctx context.Context, entries ...revocation.Revocation) error {
	return r.peers.tell(ctx, entries)
}

// BeatKey is the key of the heartbeats of a store that is not in a cluster.
func BeatKey(key secret.Bytes) string { return newLayout(key).beatKey[0] }

// StopWatch ends the looks at the servers, which would be counted with what a
// test does.
func (r *Store) StopWatch() { r.stopWatch() }
