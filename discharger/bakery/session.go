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

// Acquire fetches a discharge for a caveat and its external part, if it has one. It
// is the argument of bakery.DischargeAll, and the type of AcquireDischarge of
// httpbakery.Client.
type Acquire = func(ctx context.Context, cav macaroon.Caveat, external []byte) (*bakery.Macaroon, error)

// Access converts an access macaroon of the bakery, of any version, for
// [client.SessionConfig].
func Access(m *bakery.Macaroon) (client.Access, error) {
	if m == nil {
		return client.Access{}, errors.New("access macaroon is missing")
	}
	data, err := m.MarshalJSON()
	if err != nil {
		return client.Access{}, fmt.Errorf("marshal access macaroon: %w", err)
	}
	return client.ParseAccess(data)
}

// AcquireDischarge returns a function that takes discharges for the session's
// caveat from the session and all others from next. If next is nil, others fail.
func AcquireDischarge(s *client.Session, next Acquire) Acquire {
	return func(ctx context.Context, cav macaroon.Caveat, external []byte) (*bakery.Macaroon, error) {
		if !s.Discharges(cav.Id, external) {
			if next == nil {
				return nil, fmt.Errorf("caveat for %q is not of the session", cav.Location)
			}
			return next(ctx, cav, external)
		}
		grant, err := s.Grant(ctx)
		if err != nil {
			return nil, err
		}
		m := new(bakery.Macaroon)
		if err := json.Unmarshal(grant.JSON(), m); err != nil {
			return nil, fmt.Errorf("decode discharge: %w", err)
		}
		return m, nil
	}
}
