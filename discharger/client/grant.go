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
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/wire"
)

// Grant is the answer to a request for a discharge. Its secrets are redacted where
// it is printed, logged and marshaled.
type Grant struct {
	Access    *macaroon.Macaroon // access macaroon of the request
	Discharge *macaroon.Macaroon // unbound
	// Token is the refresh token for the next discharge, in mode rotate. Store it
	// before the discharge is used: its use confirms the token.
	Token   RefreshToken
	Expires time.Time // end of the discharge by the clock of this process

	raw json.RawMessage
}

// maxLifetime bounds the lifetime of a discharge in an answer.
const maxLifetime = 10 * 365 * 24 * time.Hour

// newGrant checks the answer to a request that was sent at started for the caveat of
// location.
func newGrant(access Access, location string, body wire.DischargeResponse, started time.Time) (Grant, error) {
	id, _, err := access.caveatFor(location)
	if err != nil {
		return Grant{}, err
	}
	d, err := parseMacaroonJSON(body.Macaroon)
	if err != nil {
		return Grant{}, err
	}
	if !bytes.Equal(d.Macaroon.Id(), id) {
		return Grant{}, errors.New("discharge is for another caveat")
	}
	for _, c := range d.Macaroon.Caveats() {
		if len(c.VerificationId) > 0 || len(d.External) > 0 {
			return Grant{}, errors.New("discharge has third-party caveats")
		}
	}
	lifetime := time.Duration(max(0, min(body.ExpiresIn, maxLifetime.Milliseconds()))) * time.Millisecond
	expires := started.Add(lifetime)
	if lifetime == 0 {
		if expires, err = earliestTimeBefore(d.Macaroon); err != nil {
			return Grant{}, err
		}
	}
	g := Grant{Access: access.Macaroon, Discharge: d.Macaroon, Expires: expires, raw: body.Macaroon}
	if body.RefreshToken != "" {
		if g.Token, err = ParseRefreshToken(body.RefreshToken); err != nil {
			return Grant{}, err
		}
	}
	return g, nil
}

// earliestTimeBefore returns the expiry of a discharge. In a V3 discharge the name
// of the condition can have a prefix.
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
		return time.Time{}, errors.New("discharge has no expiry")
	}
	return earliest, nil
}

// Remaining returns the rest of the discharge's lifetime, 0 after its end.
func (g Grant) Remaining() time.Duration { return max(0, time.Until(g.Expires)) }

// Macaroons returns the access macaroon and the discharge bound to it.
func (g Grant) Macaroons() macaroon.Slice {
	bound := g.Discharge.Clone()
	bound.Bind(g.Access.Signature())
	return macaroon.Slice{g.Access, bound}
}

// Bundle returns the bundle of the access macaroon and the discharge; see
// [bundle.Encode].
func (g Grant) Bundle() (string, error) { return bundle.Encode(g.Macaroons()) }

// JSON returns the unbound discharge as it was received. Bakery clients decode it
// into their own type.
func (g Grant) JSON() json.RawMessage { return bytes.Clone(g.raw) }

// Format writes the expiry and REDACTED, for every verb.
func (g Grant) Format(s fmt.State, _ rune) {
	fmt.Fprintf(s, "discharge until %s %s", g.Expires.UTC().Format(time.RFC3339), secret.Redacted)
}

// LogValue returns the expiry.
func (g Grant) LogValue() slog.Value { return slog.TimeValue(g.Expires) }

// MarshalJSON returns "REDACTED".
func (Grant) MarshalJSON() ([]byte, error) { return []byte(`"` + secret.Redacted + `"`), nil }
