// Package bakery connects programs that are built on the Go macaroon bakery,
// github.com/go-macaroon-bakery/macaroon-bakery/v3, with sessions of the
// discharger: services that authenticate users with bakery.Checker and httpbakery,
// and clients that fetch discharges with bakery.Slice.
//
// # Homeserver half
//
// An [Oven] takes the place of bakery.Oven in a service. It mints access macaroons
// with the session caveat, and as the MacaroonVerifier of a bakery.Checker it
// verifies them with package homeserver: offline, without a root key store, and with
// every revocation that the service publishes.
//
//	oven, err := bakery.New(bakery.Config{Homeserver: config, Feed: homeserver.FeedConfig{Client: client}})
//	go oven.Run(ctx)
//	checker := mbakery.NewChecker(mbakery.CheckerParams{Checker: bakery.NewChecker(), MacaroonVerifier: oven})
//
//	m, err := oven.NewMacaroon(homeserver.MintParams{User: user, Mode: caveat.ModeOpen})  // login
//
//	auth := checker.Auth(bakery.RequestMacaroons(r)...)                                   // request
//	info, err := auth.Allow(oven.Context(r), bakery.SessionOp)
//	identity, err := oven.Identity(oven.Context(r), info)
//
// Read requests with [RequestMacaroons] and not with httpbakery.RequestMacaroons,
// which returns macaroons that make a bakery.Oven panic, and answer errors with
// [WriteError], with 503 for an undecided request and 401 for a refused one. No
// input makes this package panic.
//
// # Client half
//
// In modes open and held the stock httpbakery.Client discharges the session caveat
// as any other. Mode rotate needs a [client.Session], which keeps the refresh token,
// and [AcquireDischarge], which joins it to bakery.Slice.DischargeAll:
//
//	access, err := bakery.Access(m)
//	session, err := c.NewSession(client.SessionConfig{Access: access, Token: stored, Save: store})
//	acquire := bakery.AcquireDischarge(session, httpClient.AcquireDischarge)
//
//	held := mbakery.Slice{m}                   // kept, unbound, for as long as the session lasts
//	held, err = held.Purge(time.Now()).DischargeAll(ctx, acquire, nil)
//	macaroons := held.Bind()                   // for one request
//
// The bakery annotates errors; errgo.Cause returns the *[client.RefusedError] or
// *[client.UnavailableError].
//
// An httpbakery.Interactor cannot do this. It is called only after an "interaction
// required", which the discharger never answers; it receives a location and no caveat,
// and so cannot choose the token of the session; and of the answer the client keeps only
// the macaroon, so that the next refresh token would be lost and the session ended as
// stolen. For the last reason a stock client must not present a refresh token in any
// other way. Its cookie jar does not fit either: it drops an access macaroon with the
// first discharge that expires, and only a login returns another.
package bakery
