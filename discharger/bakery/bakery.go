// Package bakery lets programs that are built on the Go macaroon bakery
// use sessions of mode rotate.
//
// In modes open and held there is nothing to do: the stock client of package
// httpbakery discharges the caveat as it does any other.
//
// # How
//
// A program that has logged in holds an access macaroon as a *bakery.Macaroon.
// From it and its refresh token it makes an [client.Session], and from that a
// function for bakery.Slice.DischargeAll or bakery.DischargeAll:
//
//	access, err := bakery.Access(m)
//	session, err := client.NewSession(client.SessionConfig{Access: access, Token: stored, Save: store})
//	acquire := bakery.AcquireDischarge(session, httpClient.AcquireDischarge)
//
//	held := bakery.Slice{m}                    // kept, unbound, for as long as the session lasts
//	held, err = held.Purge(time.Now()).DischargeAll(ctx, acquire, nil)
//	macaroons := held.Bind()                   // for one request
//
// The session's own caveat is discharged through the session; whatever else has
// to be discharged goes to the second argument. Errors come out of the bakery
// with a note added; errgo.Cause finds the *[client.RefusedError] or
// *[client.UnavailableError] again.
//
// # Why this is no Interactor
//
// The bakery's own way to present something when asking for a discharge is an
// httpbakery.Interactor. It does not fit, for three reasons, and each of them
// would be enough.
//
//   - An Interactor is only asked after the discharger has answered
//     "interaction required". This service never does: a client whose session is
//     over must be told so, not be sent to a login page.
//   - An Interactor is told the location and the discharger's error, but not the
//     caveat. It could not know which session's token to present.
//   - The client keeps nothing of the answer but the macaroon. The next refresh
//     token would be lost, the old one presented again, and the session ended as
//     stolen.
//
// For the last reason a stock client must not be given a refresh token in any
// other way either. The client's cookie jar does not fit for another one: it
// keeps a macaroon with its discharges only until the first of them expires,
// and then wants a new access macaroon, which only a login gives.
package bakery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/client"
)

// Acquire gets a discharge for a caveat, which may come with an external part. It
// is what bakery.DischargeAll asks for, and what AcquireDischarge of an
// httpbakery.Client is.
type Acquire = func(ctx context.Context, cav macaroon.Caveat, external []byte) (*bakery.Macaroon, error)

// Access turns an access macaroon of the bakery's, of any version, into what
// [client.SessionConfig] asks for.
func Access(m *bakery.Macaroon) (client.Access, error) {
	if m == nil {
		return client.Access{}, errors.New("no access macaroon")
	}
	data, err := m.MarshalJSON()
	if err != nil {
		return client.Access{}, fmt.Errorf("marshal access macaroon: %w", err)
	}
	return client.ParseAccess(data)
}

// AcquireDischarge gives a function that gets discharges for the session's
// caveat from the session, and all others from next. Nil as next gets none.
func AcquireDischarge(s *client.Session, next Acquire) Acquire {
	return func(ctx context.Context, cav macaroon.Caveat, external []byte) (*bakery.Macaroon, error) {
		if !s.Discharges(cav.Id, external) {
			if next == nil {
				return nil, fmt.Errorf("caveat for %q is not the session's", cav.Location)
			}
			return next(ctx, cav, external)
		}
		grant, err := s.Grant(ctx)
		if err != nil {
			return nil, err
		}
		m := new(bakery.Macaroon)
		if err := json.Unmarshal(grant.JSON(), m); err != nil {
			return nil, fmt.Errorf("read discharge: %w", err)
		}
		return m, nil
	}
}
