// Package interop tests the real binary with foreign software. It has tests only,
// behind a build tag, because they need more than a Go installation:
//
//	go test -tags interop ./cmd/discharger/interop/
//
// # Clients and homeservers
//
//	Go          httpbakery.Client, and a homeserver made of the bakery's Oven and Checker
//	Python      macaroonbakery as client and as homeserver, pymacaroons as verifier
//	JavaScript  macaroon-bakery, and macaroon with the requests written by hand
//	C           libmacaroons as verifier
//
// The Python and C libraries are Debian's, at /usr; the JavaScript ones come
// from npm, at the versions in testdata/package.json, into a temporary
// directory. A missing tool fails the tests. No test is skipped.
//
// # Sequence
//
// Every client runs the same sequence, in each mode and with each version of caveat
// that it supports: it fetches a discharge, refreshes twice, logs out, and is refused
// from then on, with an error that its library treats as a refusal. The homeserver
// accepts each of its bundles until the discharge expires. Similar sessions, of
// another user or with the same id at another homeserver, go on. After a restart of
// the service all of this still holds.
//
// The sequence runs on the embedded store and on a Redis that the tests start.
//
// # Scripts
//
// Scripts under testdata read one task in JSON from standard input and write one
// line of JSON for each step. The Go tests check the steps.
package interop
