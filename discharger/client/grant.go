package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/wire"
)

// Grant is what a discharge was answered with. It prints and logs without its
// secrets.
type Grant struct {
	// Access is the access macaroon that was asked for.
	Access *macaroon.Macaroon
	// Discharge is not bound yet.
	Discharge *macaroon.Macaroon
	// Token is the refresh token for the next discharge, in mode rotate. Store
	// it before the discharge is used: its use confirms the token.
	Token RefreshToken
	// Expires is when the discharge ends, by the client's own clock, which
	// need not agree with the service's.
	Expires time.Time

	raw json.RawMessage
}

// maxLifetime is longer than any discharge lives, and short enough to reckon
// with.
const maxLifetime = 10 * 365 * 24 * time.Hour

// newGrant makes sense of an answer to a request that was sent at started for
// the caveat with the given id.
func newGrant(access *macaroon.Macaroon, id []byte, body wire.DischargeResponse, started time.Time) (Grant, error) {
	m, external, err := parseMacaroonJSON(body.Macaroon)
	if err != nil {
		return Grant{}, err
	}
	if len(external) > 0 {
		return Grant{}, errors.New("discharge has to be discharged itself")
	}
	if !bytes.Equal(m.Id(), id) {
		return Grant{}, errors.New("discharge is for another caveat")
	}
	lifetime := time.Duration(max(0, min(body.ExpiresIn, maxLifetime.Milliseconds()))) * time.Millisecond
	expires := started.Add(lifetime)
	if lifetime == 0 {
		if expires, err = earliestTimeBefore(m); err != nil {
			return Grant{}, err
		}
	}
	for _, c := range m.Caveats() {
		if len(c.VerificationId) > 0 {
			return Grant{}, errors.New("discharge has to be discharged itself")
		}
	}
	var token RefreshToken
	if body.RefreshToken != "" {
		if token, err = ParseRefreshToken(body.RefreshToken); err != nil {
			return Grant{}, err
		}
	}
	return Grant{Access: access, Discharge: m, Token: token, Expires: expires, raw: body.Macaroon}, nil
}

// earliestTimeBefore says when a discharge expires. V3 caveats may ask for a
// prefix before the condition's name.
func earliestTimeBefore(m *macaroon.Macaroon) (time.Time, error) {
	var earliest time.Time
	for _, c := range m.Caveats() {
		name, arg := rawmacaroon.CutCondition(string(c.Id))
		if name != rawmacaroon.CondTimeBefore && !strings.HasSuffix(name, ":"+rawmacaroon.CondTimeBefore) {
			continue
		}
		t, err := rawmacaroon.ParseTimeBefore(arg)
		if err != nil {
			return time.Time{}, fmt.Errorf("expiry of the discharge: %w", err)
		}
		if earliest.IsZero() || t.Before(earliest) {
			earliest = t
		}
	}
	if earliest.IsZero() {
		return time.Time{}, errors.New("discharge does not expire")
	}
	return earliest, nil
}

// Macaroons gives the access macaroon and the discharge, bound to it, for use
// with a macaroon library.
func (g Grant) Macaroons() macaroon.Slice {
	bound := g.Discharge.Clone()
	bound.Bind(g.Access.Signature())
	return macaroon.Slice{g.Access, bound}
}

// Bundle binds the discharge to the access macaroon and writes both as a text
// for the homeserver; see [bundle.Encode].
func (g Grant) Bundle() (string, error) { return bundle.Encode(g.Macaroons()) }

// JSON gives the unbound discharge as it was answered. Bakery clients read it
// into their own type.
func (g Grant) JSON() json.RawMessage { return bytes.Clone(g.raw) }

// Format writes when the discharge expires, and that the rest is REDACTED,
// whatever the verb.
func (g Grant) Format(s fmt.State, _ rune) {
	fmt.Fprintf(s, "discharge until %s %s", g.Expires.UTC().Format(time.RFC3339), redacted)
}

// LogValue gives when the discharge expires.
func (g Grant) LogValue() slog.Value { return slog.TimeValue(g.Expires) }

// MarshalJSON gives "REDACTED".
func (Grant) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
