// Package gateway is a reverse proxy in front of an unmodified Matrix homeserver that
// issues short-lived, revocable tokens to unmodified clients.
//
// # Overview
//
// To clients the gateway is the homeserver, and to the service it is a homeserver too.
// When the real homeserver answers a login with a token, the gateway mints an access
// macaroon with that token sealed inside, has it discharged, and returns a token of its
// own to the client. It verifies such a token on every request and forwards the request
// with the homeserver's token. Verification is offline: an unexpired discharge is
// accepted while the service, its store or the network to them is down.
//
//	client ──gateway's token──▶ GATEWAY ──homeserver's token──▶ homeserver
//	                               │
//	                               └── discharges, revocations ──▶ service
//
// # Tokens
//
// Package token draws the three kinds: dga_ and dgb_ access tokens of the modes held
// and rotate, and dgr_ refresh tokens.
//
// A client that logs in with refresh_token: true has mode rotate, any other has mode
// held. During user-interactive authentication the flag may be in the first request
// only, if the same process receives the later requests: it keeps some ten thousand
// sets of parameters for two days. Otherwise the mode is held. A token with a changed
// byte or prefix is refused before the homeserver sees the request.
//
// The homeserver's token stays the same for the whole session: homeservers keep state of
// a device under it, such as transaction ids.
//
// # Routes
//
//	POST login, register      the response gets the gateway's tokens
//	POST refresh              answered here
//	/_synapse/admin           like login for the two paths that hand out tokens
//	logout                    forwarded if the session has its device; the service
//	                          ends the session first
//	logout/all, account/password, account/deactivate, devices/{id},
//	delete_devices            after a 200, the service ends the sessions
//	401 M_UNKNOWN_TOKEN       likewise: the homeserver has ended the session
//	versions                  v1.3, which introduced refresh tokens, is added
//	.well-known/matrix/client base_url becomes the gateway's
//
// Everything else is forwarded, bodies unread, paths and queries unchanged. Tokens on
// paths of federation, identity servers and application services are not examined.
// Package matrix holds the table of routes. A target that is malformed, or that a proxy
// or homeserver could resolve to a route which hands out or ends tokens, is refused
// with 400, 404 or 405 and M_UNRECOGNIZED.
//
// Where legacy tokens are refused, see [Legacy], a request has one well-formed
// Content-Type that its route accepts, and a form contains no token.
//
// # Devices
//
// A device has at most one live session, the one the service activated last. Earlier
// sessions ended softly. Homeservers differ: Synapse keeps old tokens of a device alive,
// and POST /logout with any of them deletes the device with its keys; Dendrite revokes
// the older token at a login. So the gateway logs a device out at the homeserver only
// after its session ended hard, and only if the service reports no other session on it.
// Logins and logouts of one device are serialized, and a login cancels a pending logout.
//
// The device of a softly ended session stays, so that its user can log in again and
// keep the keys. After Config.ForgetAfter on the service's clock, a reaper logs it out,
// unless another session has it or the homeserver has seen it in use since.
//
// Every refresh first confirms that the homeserver still accepts the session's token:
// a device that an administrator deleted there is not refreshed.
//
// # Several gateways
//
// Any number of gateways may stand before one homeserver, with the same keys and one
// outbox each. Of simultaneous logins on one device through two of them, one session
// lives; before a homeserver that revokes older tokens in an order of its own, at most
// one. A delayed revocation carries its age and ends only sessions that had begun by
// then. Two things are in memory and not shared: the parameters of user-interactive
// authentication, and the request ids that make concurrent refreshes of one party with
// one token the same request.
//
// # User-interactive authentication
//
// The last request may contain only auth. From the requests before it the gateway keeps
// the refresh_token flag, the devices to delete, and whether a new password logs other
// devices out. Synapse takes members that are missing later from the first request,
// Dendrite takes none. If the last request does not name its devices, the homeserver's
// list of devices, or its responses to their tokens, determine afterwards which sessions
// ended.
//
// # Responses
//
// Clients delete encryption keys when they believe to be logged out. So an ended session
// is 401 M_UNKNOWN_TOKEN with the soft_logout that the service decided, the same from
// every gateway and after restarts. An expired token, a token bound to another address
// and a denied refresh are 401 with soft_logout: true. Any other request that a policy
// denies is 403 M_FORBIDDEN, and the session lives. An undecided request is 503 with
// Retry-After; on refresh it is text/plain, since clients take any JSON there for the
// end of the session. An internal error is 503 too, logged as ERROR.
//
// # Outages of the service
//
// While the service or its store is unreachable, a request that needs it waits up to 10
// seconds. The call is retried with backoff, once for all requests of a session, and
// immediately when the feed of revocations has reconnected or another call was decided.
// A session already known to have ended is refused without waiting, and a revocation
// that arrives ends the wait. The number of waiting requests is bounded, in all and per
// client address; they do not count as requests in flight. [Gateway.Drain] answers them.
//
// Some clients log out for good when their access token has expired and they cannot
// refresh it. So a token in mode rotate is reported as expired only if the service can
// decide now, and could when the token expired or within the 10 seconds since.
//
// A login or registration is forwarded only after the service has confirmed, at most a
// second ago, that it can decide. If it then cannot, the first discharge waits. A failed
// login leaves no device behind, unless the client named the device, another session has
// it, or one had it before.
//
// # Narrowed tokens
//
// The holder of a dga_ token can narrow it offline, to a time, an address, reading or one
// room, and hand it to a script; package token lists the conditions. A narrowed token
// works on an allow-list of routes, which deploy/narrowed-tokens.md shows. Excluded are
// logout, the account with its profile, data and push rules, devices, keys, pushers, other
// tokens, extensions and the paths of administrators. A response to a token for one room is
// withheld if it contains an event of another room.
//
// # Limits
//
// Concurrent requests are limited, see [admission.Limits]; a request beyond a limit is answered
// with 429. So is one that finds no room in the 16 MiB shared by large bodies that the
// gateway parses. Request bodies must progress by 1 KiB in 30 s, or the response is 408;
// bodies that the gateway parses must arrive within 30 s. A response that is not read
// for a minute closes the connection. No total time bounds an upload, a download or a
// long poll.
//
// Not forwarded are hop-by-hop headers, Upgrade and Expect above all, names with an
// underscore, request trailers, and a Referer with a token. Connection cannot name
// fields that are meant for the homeserver.
//
// # Memory and file
//
// In memory, within Config.CacheBytes: discharges in use, recently verified tokens, and
// ended sessions. Of the narrowed tokens of one session 8 are cached; others are
// verified every time. An end that is still to be sent to the service is never evicted.
// The parameters of user-interactive authentication take 4 MiB more.
//
// In the file of package outbox: the sessions that have a device at the homeserver, each
// with its sealed token, so that devices whose sessions end elsewhere can be logged out
// and stop receiving keys; and revocations still to be sent to the service. Tokens are
// verified without the file.
//
// The gateway logs no token, no query and no header.
package gateway
