// Package matrix tests the real binary as a gateway before a real, unmodified
// Dendrite and Synapse, with unmodified Matrix clients. It has tests only:
//
//	cd cmd/discharger/interop/matrix
//	go test -tags goolm -parallel 8 ./...
//
// It is a module of its own, so that a homeserver does not become a dependency of
// this project. The first run builds Dendrite, which takes minutes; later ones find it
// in Go's build cache. Synapse comes from the Python virtual environment whose path is
// in DISCHARGER_SYNAPSE; .ci/test makes one with the packages in
// testdata/requirements.txt. The JavaScript client and its Node.js
// come from npm, at the versions in testdata/package.json. A missing tool fails
// the tests. Most of their time is spent waiting, hence -parallel.
//
// # Sessions
//
// [TestMatrix] tests the begin and end of sessions. Discharges last a few seconds, so
// that every test needs several.
//
//   - Clients without and with refresh tokens log in, sync, send and log out: by
//     hand, with mautrix-go and with matrix-js-sdk.
//   - An end of a session at the homeserver ends it at the gateway, and the other
//     way round.
//   - With the service or its store dead, discharges are valid until they expire, no
//     client is logged out, and all sessions go on afterwards.
//   - No token of the homeserver's is in an answer, a log or a metric.
//
// # Outages
//
// [TestOutage] takes the service away from clients that sync: matrix-nio, Hydrogen,
// matrix-js-sdk 42 and 43, and mautrix-go, with and without refresh tokens. It lasts
// 15 seconds, or the duration in DISCHARGER_TEST_OUTAGE, and discharges four ninths of
// that. Each client gets fewer than 50 answers of 503, the gateway logs less than
// 100 KiB, and afterwards all receive messages as before.
//
//	DISCHARGER_TEST_OUTAGE=45s go test -tags goolm -v -run TestOutage .
//
// # Devices
//
// [TestDevices] has several clients use one device. The homeservers differ:
//
//	                                   Dendrite          Synapse
//	login on an existing device        ends its token    older tokens stay alive
//	logout                             ends the token    ends all tokens of the device
//	                                   and the device    and the device
//
// After every scenario, one session is left. Its device and its keys are at the
// homeserver. All older sessions have ended, and every answer to them has
// soft_logout: true, since the device goes on. Only with several gateways before
// Dendrite, no session of simultaneous logins may be left.
//
// A scenario is named by homeserver, mode, gateways and order of events:
//
//	go test -tags goolm -run 'TestDevices/synapse/rotate/two gateways/12 at once' .
//	go test -tags goolm -run 'TestDevices/.*/held/restart' .
//
// Each is played five times, or DISCHARGER_TEST_ROUNDS times:
//
//	DISCHARGER_TEST_ROUNDS=200 go test -tags goolm -parallel 8 -timeout 2h -run TestDevices .
//
// # The gate
//
// [TestDifferential] makes the same requests to a homeserver, and through a gateway
// to another one in the same state, and compares status, header and body. Its
// paths are those of testdata/routes.txt, which [TestRoutes] compares with the routes
// that Synapse registers. Each path is requested with every method and one way
// to carry a token; with DISCHARGER_TEST_WHOLE, in every way:
//
//	DISCHARGER_TEST_WHOLE=1 go test -tags goolm -timeout 2h -run 'TestDifferential|TestNarrowed' .
//
// The differences that are accepted are in acceptedDifferences, with reasons.
//
// [TestNarrowed] requests the routes of the gateway's table with narrowed tokens,
// before both homeservers. [TestHostile] sends targets that servers read in different
// ways to hyper, to nginx with a proxy_pass that normalizes, and to
// Twisted: cargo and nginx are needed for it. [TestLegacy] sends the homeserver's own
// tokens in every place and spelling in which Synapse may find them.
package matrix
