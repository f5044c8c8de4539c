package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/wire"
	"gopkg.in/macaroon.v2"
)

// Access is an access macaroon as its holder keeps it.
type Access struct {
	// Macaroon is the access macaroon, not bound to anything.
	Macaroon *macaroon.Macaroon
	// External holds caveats that are not in the macaroon but beside it, by
	// the ids that stand for them there. The bakery makes such with V3
	// caveats. Usually it is nil.
	External map[string][]byte
}

// maxAccess bounds what ParseAccess looks at, in bytes.
const maxAccess = 64 << 10

// ParseAccess reads an access macaroon in any of the forms that homeservers
// give it out in: a bundle, whose discharges are left aside if it has any, or
// JSON of the macaroon library (V1, V2) or of the bakery (V3, with external
// caveats).
func ParseAccess(data []byte) (Access, error) {
	if len(data) == 0 || len(data) > maxAccess {
		return Access{}, errors.New("parse access macaroon: empty or too long")
	}
	if data[0] == '{' {
		m, external, err := parseMacaroonJSON(data)
		if err != nil {
			return Access{}, fmt.Errorf("parse access macaroon: %w", err)
		}
		return Access{Macaroon: m, External: external}, nil
	}
	s, err := bundle.Decode(string(data))
	if err != nil {
		return Access{}, fmt.Errorf("parse access macaroon: %w", err)
	}
	return Access{Macaroon: s[0]}, nil
}

// parseMacaroonJSON reads a macaroon in JSON: plain, or in the bakery's V3
// wrapping.
func parseMacaroonJSON(data []byte) (*macaroon.Macaroon, map[string][]byte, error) {
	var wrapped struct {
		Macaroon json.RawMessage   `json:"m"`
		Version  int               `json:"v"`
		External map[string]string `json:"cdata"`
	}
	if err := json.Unmarshal(data, &wrapped); err != nil {
		return nil, nil, errors.New("not a macaroon in JSON")
	}
	if len(wrapped.Macaroon) > 0 {
		if wrapped.Version != 3 {
			return nil, nil, fmt.Errorf("bakery macaroon of version %d, want 3", wrapped.Version)
		}
		data = wrapped.Macaroon
	}
	m, err := parsePlainJSON(data)
	if err != nil {
		return nil, nil, err
	}
	if len(wrapped.Macaroon) == 0 || len(wrapped.External) == 0 {
		return m, nil, nil
	}
	external := make(map[string][]byte, len(wrapped.External))
	for id64, caveat64 := range wrapped.External {
		id, err := wire.DecodeBase64(id64)
		if err != nil {
			return nil, nil, fmt.Errorf("id of an external caveat: %w", err)
		}
		if external[string(id)], err = wire.DecodeBase64(caveat64); err != nil {
			return nil, nil, fmt.Errorf("external caveat: %w", err)
		}
	}
	return m, external, nil
}

// parsePlainJSON reads a macaroon of version 1 or 2. The library takes other
// things too, such as a string with the binary format in base64, and indexes
// its input without looking; so only an object reaches it.
func parsePlainJSON(data []byte) (*macaroon.Macaroon, error) {
	if len(data) == 0 || data[0] != '{' {
		return nil, errors.New("not a macaroon in JSON")
	}
	m := new(macaroon.Macaroon)
	if err := m.UnmarshalJSON(data); err != nil {
		return nil, fmt.Errorf("not a macaroon in JSON: %w", err)
	}
	return m, nil
}

// caveatFor finds the access macaroon's third-party caveat that is addressed to
// location, and the external caveat that belongs to it, if any.
func (a Access) caveatFor(location string) (id, external []byte, err error) {
	if a.Macaroon == nil {
		return nil, nil, errors.New("no access macaroon")
	}
	found := 0
	for _, c := range a.Macaroon.Caveats() {
		if len(c.VerificationId) > 0 && strings.TrimSuffix(c.Location, "/") == location {
			id, external = c.Id, a.External[string(c.Id)]
			found++
		}
	}
	if found != 1 {
		return nil, nil, fmt.Errorf("access macaroon has %d third-party caveats for %q, want one", found, location)
	}
	return id, external, nil
}

// complete checks that nobody else has to discharge something as well.
func (a Access) complete(location string) error {
	for _, c := range a.Macaroon.Caveats() {
		if len(c.VerificationId) > 0 && strings.TrimSuffix(c.Location, "/") != location {
			return fmt.Errorf("access macaroon needs a discharge by %q too, and a bundle would lack it", c.Location)
		}
	}
	return nil
}
