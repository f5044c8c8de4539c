// Package interop runs the real binary against software that knows nothing of
// this project. It has tests only, behind a build tag, because they need what
// a bare Go installation does not have:
//
//	go test -tags interop ./cmd/discharger/interop/
//
// # Who takes part
//
//	Go          httpbakery.Client, and a homeserver made of the bakery's Oven and Checker
//	Python      macaroonbakery as client and as homeserver, pymacaroons as verifier
//	JavaScript  macaroon-bakery, and macaroon with the requests written by hand
//	C           libmacaroons as verifier
//
// The Python and C libraries are Debian's, at /usr; the JavaScript ones come
// from npm, at the versions in testdata/package.json, into a temporary
// directory. What is missing fails the tests. Nothing is skipped.
//
// # What is shown
//
// Every client plays the same part, in each mode and with each version of
// caveat that it knows: it gets a discharge, refreshes twice, logs out, and is
// refused from then on, with an error that it understands as a refusal. Each
// bundle it made is accepted by the homeserver until the discharge expires.
// Sessions of others that could be mistaken for this one, of another user or
// with the same id at another homeserver, go on. Then the service is stopped
// and started again, and all of this is still so.
//
// The same happens on the embedded store and on a Redis that the tests start.
//
// # How
//
// Scripts under testdata read one task in JSON from standard input and write
// one line of JSON for each step they took. They report; judging is left to
// the tests.
package interop
