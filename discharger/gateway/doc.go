// Package gateway is a reverse proxy in front of an unmodified Matrix homeserver that
// gives unmodified clients short-lived, revocable tokens.
//
// # What it does
//
// It is a reverse proxy, and to the service it is a homeserver. When the real
// homeserver answers a login with a token, the gateway mints an access macaroon
// with that token sealed inside, has it discharged, and gives the client a token
// of its own instead. When a request comes with such a token, it verifies it,
// and passes the request on with the homeserver's. Verification is offline: a discharge
// that has not expired is accepted with the service, its store and the network to
// them down.
//
//	client ──gateway's token──▶ GATEWAY ──homeserver's token──▶ homeserver
//	                               │
//	                               └── discharges, ends of sessions ──▶ service
//
// # Tokens
//
// Package token draws the three kinds: dga_ and dgb_ access tokens of the modes held
// and rotate, and dgr_ refresh tokens.
//
// A client that logs in with refresh_token: true has mode rotate, any other has
// mode held. Where the homeserver asks something before it registers a user, it
// is enough to say so in the first request, as long as this process gets the
// others too; it remembers that for two days, of some ten thousand. Otherwise
// the mode is held. Reading is strict. Every token has one text, and with any byte of
// it changed it is refused before the homeserver sees the request; so is a token
// whose prefix was changed, which would else look like one of the homeserver's.
//
// The homeserver's token is sealed with XChaCha20-Poly1305 under a key derived
// from the gateway's master key, and bound to the session. It stays the same for
// the whole session: homeservers keep what they remember of a device, such as
// transactions that must not happen twice, under it.
//
// # Routes
//
//	POST login, register      the answer gets the gateway's tokens
//	POST refresh              answered here
//	/_synapse/admin           likewise for the two paths that hand out tokens
//	logout                    passed on if the session has its device; the service
//	                          ends the session first
//	logout/all, account/password, account/deactivate, devices/{id},
//	delete_devices            after a 200, the service ends the sessions
//	401 M_UNKNOWN_TOKEN       likewise: the homeserver has ended the session
//	versions                  v1.3, with which refresh tokens came, is added
//	.well-known/matrix/client base_url becomes the gateway's
//
// Everything else passes through: bodies unread, paths and queries byte by byte.
// On paths between servers, of identity servers and of application services,
// tokens are other people's and are not looked at. Package matrix holds the table of
// routes. A target that is malformed, or that a proxy or homeserver could read as a
// route which hands out or ends tokens, is refused with 400, 404 or 405 and
// M_UNRECOGNIZED.
//
// Where tokens from before the gateway are refused, see [Legacy], a request has one
// well-formed Content-Type, of those that its route takes, and no form carries a
// token.
//
// # Devices
//
// Of the sessions of a device one lives, and the service decides which: the one
// that was activated last. Those before it ended softly. Homeservers differ.
// Synapse keeps old tokens of a device alive, and POST /logout with any of them
// deletes the device with its keys; Dendrite kills the older token at a login. So
// a device is logged out at the homeserver only after its session ended hard, and
// only if no other session has it, which the service is asked every time. Login
// and logout of one device happen one after the other, each with all that belongs
// to it, and a login cancels a logout that is still to come.
//
// The device of a session that ended softly stays, so that its user can log in
// again and keep the keys. When Config.ForgetAfter has gone by on the service's
// clock, a reaper logs it out, unless another session has it or the homeserver saw
// it in use since.
//
// Before every refresh the homeserver is asked whether it still knows its token, so
// that a device that an administrator deleted there is not refreshed once more.
//
// # Several gateways
//
// Any number of them may stand before one homeserver, with the same keys and a
// file each. Of simultaneous logins on one device through two of them, one lives;
// before a homeserver that kills older tokens in an order of its own, at most one.
// A revocation that is sent late, because the service was away, carries its age and
// ends only sessions that had begun by then. Only what is in memory is not shared:
// the parameters of user-interactive authentication under way, and that two
// refreshes of one party with one token are the same request.
//
// # User-interactive authentication
//
// The last request may have nothing but auth. Of those before it the gateway
// remembers the wish for a refresh token, the devices to be deleted, and whether a
// new password logs other devices out. Homeservers differ in what they take from
// the first request. So where the last does not say which devices it is about, the
// homeserver decides afterwards which sessions are over, by its list of devices or by
// what it answers to their tokens.
//
// # Answers
//
// Clients delete encryption keys when they believe to be logged out, so the end of
// a session is 401 M_UNKNOWN_TOKEN with the soft_logout that the service decided
// on, the same from every gateway and after restarts. A token that has merely run
// out, or is bound to another address, is refused with soft_logout: true, and so is
// a refresh that was denied. Another request that a policy denies is 403
// M_FORBIDDEN, and the session lives. What is undecided is 503 with Retry-After; on
// refresh it is text/plain, since clients take any JSON there for the end. A
// mistake of the gateway's own is 503 too, with an ERROR in the log.
//
// # While the service decides nothing
//
// It may be unreachable, or its store may be. A request that needs it waits up to 10
// seconds. Its call is repeated with growing pauses, one call for all requests of a
// session, and at once when the feed of revocations has connected again or another
// call was decided. A known end of the session is answered without waiting, and one
// that becomes known ends the wait. Waiting requests are bounded, in all and per
// client address, and have no place among those in flight. [Gateway.Drain] answers
// them.
//
// Some clients end for good when their access token has run out and they cannot
// refresh it. So a token in mode rotate is called expired only if the service can
// decide, and could when the token ran out or at any time in the 10 seconds since.
//
// A login or registration is passed on after the service answered that it can
// decide, at most a second ago. If it decides nothing after all, the first discharge
// waits. A login that fails then leaves no device behind, unless the client named
// the device, another session has it, or one had it before.
//
// # Narrowed tokens
//
// The holder of a dga_ token can narrow it offline, see
// [token.Attenuate], and hand it to a script. Conditions only ever narrow, and up
// to 16 of them may be added:
//
//	time-before T   until a time, RFC 3339
//	client-ip A     from an address or a CIDR only
//	read-only       for reading
//	room !id        in one room
//
// Any other condition makes a token worthless, and so do more than 16 and one of more
// than 512 bytes. A narrowed token works by an
// allow-list of routes, which [matrix.WriteAllowList] writes and
// deploy/narrowed-tokens.md shows. Not on it are logout, the account, its profile, data
// and push rules, devices, keys and pushers, other tokens, extensions and paths of
// administrators. An answer with events to a token for one room is withheld if one of
// them is of another.
//
// # Limits
//
// Concurrent requests are limited, see [Limits]; a request beyond a limit is
// answered with 429. So is one for which there is no room in the 16 MiB that large
// bodies of logins and the like share with answers that are looked at. Bodies have
// to go on arriving, 1 KiB in 30 s, or the answer is 408; those that the gateway
// reads have to arrive within 30 s. An answer that is not read for a minute ends the
// connection. Neither bounds how long an upload, a download or a long poll takes.
//
// Of headers, the gateway keeps to itself what concerns one connection, Upgrade and
// Expect above all, names with an underscore, request trailers, and a Referer with
// a token. Connection cannot name fields that are meant for the homeserver.
//
// # Memory and file
//
// In memory: discharges in use, tokens that were verified lately, and how sessions
// ended. That takes Config.CacheBytes at most, and of the tokens that the holder
// of one session narrowed, 8 are kept: others work, and are verified every time.
// An end that the service could not be told of yet is kept in any case. Beside it,
// the parameters of user-interactive authentication, within 4 MiB. In one file:
// the sessions that have a device at the homeserver, with its token, sealed, so
// that devices whose sessions end elsewhere can be logged out there and do not go
// on receiving keys; and ends of sessions that the service could not be told of
// yet. Neither is needed to recognize a token.
//
// It logs no token, no query and no header.
package gateway
