package setup

import (
	"time"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
)

// Homeserver returns a homeserver with the keys of a ring.
func Homeserver(ring *keyfile.Ring, now func() time.Time) (*homeserver.Homeserver, error) {
	return homeserver.New(homeserver.ConfigFromRing(ring).WithClock(now))
}

// Opener returns an opener of caveats with the service's keys and all keys of the
// configured homeservers.
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
