// Package wire is the wire contract of the discharger: paths, parameters,
// headers, bodies and codes. It sends nothing and imports no HTTP client.
//
// # The contract
//
// The paths, parameters, headers, bodies and codes below are all there is to
// say between a client and the service. They are those of the macaroon
// bakery's discharge protocol, so that its clients work unchanged, with four
// additions that such clients never notice: a refresh token goes in as a
// discharge token of kind "refresh", a new one comes out beside the discharge,
// so does the discharge's lifetime, and there are paths to log out and to see and
// end the user's other sessions.
//
//	POST /discharge
//	    id | id64        the caveat's id, as text or in base64
//	    caveat64         the caveat itself, where id is only a short name for it
//	    token64          the refresh token, in base64
//	    token-kind       "refresh", with token64
//	    request-id       any text up to 64 bytes; the same for every attempt at one refresh
//	    client-ip        \ from a homeserver with its API key: for whom it asks
//	    user-agent       /
//	200 {"Macaroon": …, "RefreshToken": "…", "ExpiresIn": 300000}
//
//	POST /logout         the same parameters, and
//	    scope            "session", which is the default, or "user"
//	200 {}
//
//	POST /sessions       the same parameters: the live sessions of the user; in
//	                     mode rotate with a refresh token, in mode open not at all
//	POST /sessions/revoke   the same, and
//	    session          the id of one of them, to end it
//
// Parameters are read from the query and from a form body. Base64 is accepted
// in the standard and the URL alphabet, padded or not ([DecodeBase64]). The
// Macaroon is what the bakery's clients expect for the version of the caveat.
//
// The status of an answer tells a client what to do, and nothing else in it
// changes that:
//
//	200  here it is
//	400  the request is wrong; repeating it is useless
//	401  decided: no. The Info of the body says why, and whether the session is over
//	429  ask again after Retry-After seconds; only ever after failures
//	503  not decided: ask again, after Retry-After seconds if it says so
//
// Only a 401 whose body is JSON with the code "permission denied" is a decision,
// and only one with Ended in its Info says that the session is over; see
// [RefusalInfo]. SoftLogout then says whether the client keeps its encryption
// keys after the next login. Since clients delete keys otherwise, [client.Client]
// takes nothing else for it: no proxy's error page, and no unknown status.
//
// # Discharges
//
// A discharge's first-party caveats are in this order, which is signed:
//
//	time-before <RFC 3339, UTC>    always, and always the first
//	declared epoch <decimal>       in mode rotate always, and always the second; else never
//	…                              what a policy added
//	…                              what its holder added
//
// Whoever holds a macaroon can append to it, but not insert, remove or reorder.
// So what stands in its place comes from the service, and the same words
// further down come from nobody in particular.
//
// # Refresh tokens
//
// To a client a refresh token is a text without meaning. It is in fact a
// macaroon, and its holder may narrow it before storing it or passing it on;
// see [client.RefreshToken.Attenuate]. The service enforces what was added, and puts
// the same into every token that comes from it.
//
// # Bundles
//
// What a client sends to its homeserver is a bundle: the access macaroon and
// the discharge bound to it, as one text. See [bundle.Bundle] for its two forms.
//
// # Homeservers
//
// With its API key, a homeserver sees and ends the sessions that it minted:
// [client.Client.Sessions], [client.Client.RevokeSession], [client.Client.Revoke] and others.
// Revocations, its own and all others, are in a feed of server-sent events:
//
//	GET /v1/revocations
//	event: revocation    a [Revocation]; id is where to resume, as Last-Event-ID
//	event: gap           the feed does not continue there; all that is retained follows
//	event: current       all that is retained was sent; a [FeedState]
//	:                    nothing new, but the line is alive
//
// [client.Client.FollowRevocations] reads one connection of it. Package homeserver
// connects again and remembers what it read.
package wire
