// Package client is the Go client of the discharger, for clients and for
// homeservers. Package wire is the contract that it keeps.
//
// # For clients
//
// [Client.Discharge] fetches one discharge. [Client.NewSession] returns a
// [Session], which keeps an access macaroon discharged: it refreshes ahead of
// time, once for all concurrent callers, and a lost reply does no harm.
// Programs built on the Go macaroon bakery use package bakery.
//
// # For homeservers
//
// With the API key of a homeserver, [Client.Sessions], [Client.RevokeSession],
// [Client.RevokeDevice], [Client.RevokeUser] and [Client.RevokeHomeserver] list
// and revoke the sessions that the homeserver minted, and
// [Client.FollowRevocations] reads the feed of revocations on one connection.
// Package homeserver reconnects and remembers the revocations.
//
// # Errors
//
// An error is of one of three types. A [RefusedError] is a decision of the
// discharger; only one with Ended ends a session. An [UnavailableError] decides
// nothing, and neither does a [BadRequestError]. Since clients delete encryption
// keys after a hard end, an answer counts as a decision only if it has status 401
// and a JSON body with the code "permission denied": the error page of a proxy and
// an unknown status are an UnavailableError.
//
// # Secrets
//
// The client sends secrets to the configured URL only, never to the location in a
// macaroon, which is not signed. It follows no redirect, puts no secret into a
// URL and logs nothing. Its types print without their secrets.
package client
