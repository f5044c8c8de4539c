package bakery_test

import "github.com/discharger/discharger/discharger/wire"

// onEvent returns a function that sends each revocation to a channel.
func onEvent(to chan<- string) func(wire.Revocation) {
	return func(r wire.Revocation) { to <- r.Reason }
}
