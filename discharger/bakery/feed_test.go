package bakery_test

import "github.com/discharger/discharger/discharger/revocation"

// onEvent returns a function that sends each revocation to a channel.
func onEvent(to chan<- string) func(revocation.Event) {
	return func(r revocation.Event) { to <- string(r.Reason) }
}
