// Package matrix runs the real binary as a gateway before a real Dendrite that
// knows nothing of it, with Matrix clients that know nothing of it. It has tests
// only:
//
//	cd cmd/discharger/interop/matrix && go test -tags goolm ./...
//
// It is a module of its own, so that a homeserver does not become a dependency
// of this project. The first run builds Dendrite, which takes minutes; later
// ones find it in Go's build cache. The JavaScript client and its Node.js come
// from npm, at the versions in testdata/package.json. What is missing fails the
// tests.
//
// # What is shown
//
// Discharges last a few seconds here, so that every test goes through several.
//
//   - Clients that never heard of refresh, and ones that do, log in, sync, send
//     and log out: by hand, with mautrix-go and with matrix-js-sdk.
//   - Whatever ends a session at the homeserver ends it here, and the other way
//     round.
//   - With the service or its store dead, what has not run out goes on, nobody is
//     logged out, and all is well when they are back.
//   - No token of Dendrite's is in anything that a client, a log or a metric
//     shows.
package matrix
