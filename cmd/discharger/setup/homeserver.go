package setup

import (
	"time"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
)

// newHomeserver makes what a homeserver would make of its keys.
func Homeserver(ring *keyfile.Ring, now func() time.Time) (*homeserver.Homeserver, error) {
	var keys homeserver.Keys
	for _, k := range ring.Of(keyfile.Root) {
		keys = append(keys, homeserver.Key{Key: k.Secret()})
	}
	var retired [][4]byte
	for _, k := range ring.RetiredOf(keyfile.Root) {
		retired = append(retired, k.ID)
	}
	return homeserver.New(homeserver.Config{
		Name: ring.Peer.Name, Location: ring.Peer.Service, Discharger: ring.Peer.ServiceKey,
		Keys: keys, Retired: retired, KeyPair: ring.Of(keyfile.Seal)[0].Pair(), Clock: now,
	})
}

// newOpener registers the homeservers with all of their keys.
func Opener(cfg *config.Config, keys *keyfile.Ring) (*caveat.Opener, error) {
	oc := caveat.OpenerConfig{Keys: pairs(keys, keyfile.Discharger)}
	for _, k := range keys.RetiredOf(keyfile.Discharger) {
		oc.Retired = append(oc.Retired, k.ID)
	}
	for _, h := range cfg.Homeservers {
		for _, key := range h.RetiredKeys {
			oc.Homeservers = append(oc.Homeservers, caveat.Homeserver{Name: h.Name, Key: key, Retired: true})
		}
		for _, key := range append([]caveat.PublicKey{h.PublicKey}, h.PreviousKeys...) {
			oc.Homeservers = append(oc.Homeservers, caveat.Homeserver{Name: h.Name, Key: key})
		}
	}
	return caveat.NewOpener(oc)
}

func pairs(keys *keyfile.Ring, kind keyfile.Kind) []caveat.KeyPair {
	var all []caveat.KeyPair
	for _, k := range keys.Of(kind) {
		all = append(all, k.Pair())
	}
	return all
}
