package journal

import (
	"cmp"
	"slices"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

// ByUser groups entries by user and by homeserver, the oldest first. The order of
// the journal is another one: it has an entry of another process when it arrives.
func ByUser(entries []revocation.Revocation) (map[store.UserKey][]revocation.Revocation, map[string][]revocation.Revocation) {
	users := make(map[store.UserKey][]revocation.Revocation)
	homeservers := make(map[string][]revocation.Revocation)
	for _, e := range entries {
		if e.Kind == revocation.KindHomeserver {
			homeservers[e.Homeserver] = append(homeservers[e.Homeserver], e)
			continue
		}
		u := store.UserKey{Homeserver: e.Homeserver, User: e.User}
		users[u] = append(users[u], e)
	}
	for _, some := range users {
		slices.SortStableFunc(some, func(a, b revocation.Revocation) int { return cmp.Compare(a.At, b.At) })
	}
	return users, homeservers
}
