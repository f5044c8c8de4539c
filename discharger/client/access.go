package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/wire"
)

// Access is an access macaroon as its holder stores it.
type Access struct {
	Macaroon *macaroon.Macaroon // unbound
	External map[string][]byte  // V3 caveats of the bakery by id, which are beside the macaroon; usually nil
}

// maxAccess bounds the input of ParseAccess, in bytes.
const maxAccess = 64 << 10

// ParseAccess parses an access macaroon in any form in which homeservers return it: a
// bundle, of which it drops the discharges, or JSON of the macaroon library (V1, V2) or
// of the bakery (V3, with external caveats). White space around it is ignored.
func ParseAccess(data []byte) (a Access, err error) {
	data = bytes.TrimSpace(data)
	switch {
	case len(data) == 0 || len(data) > maxAccess:
		err = errors.New("empty or too long")
	case data[0] == '{':
		a, err = parseMacaroonJSON(data)
	default:
		var s macaroon.Slice
		if s, err = bundle.Decode(string(data)); err == nil {
			a.Macaroon = s[0]
		}
	}
	if err != nil {
		return Access{}, fmt.Errorf("parse access macaroon: %w", err)
	}
	return a, nil
}

var errNotMacaroon = errors.New("malformed macaroon JSON")

// parseMacaroonJSON parses a macaroon in JSON, bare or in the V3 wrapping of the bakery.
func parseMacaroonJSON(data []byte) (Access, error) {
	var wrapped struct {
		Macaroon json.RawMessage   `json:"m"`
		Version  int               `json:"v"`
		External map[string]string `json:"cdata"`
	}
	if err := json.Unmarshal(data, &wrapped); err != nil {
		return Access{}, errNotMacaroon
	}
	if len(wrapped.Macaroon) == 0 {
		m, err := parseBareJSON(data)
		return Access{Macaroon: m}, err
	}
	if wrapped.Version != 3 {
		return Access{}, fmt.Errorf("bakery macaroon has version %d, want 3", wrapped.Version)
	}
	m, err := parseBareJSON(wrapped.Macaroon)
	if err != nil || len(wrapped.External) == 0 {
		return Access{Macaroon: m}, err
	}
	external := make(map[string][]byte, len(wrapped.External))
	for id64, caveat64 := range wrapped.External {
		id, err := wire.DecodeBase64(id64)
		if err != nil {
			return Access{}, fmt.Errorf("id of external caveat: %w", err)
		}
		if external[string(id)], err = wire.DecodeBase64(caveat64); err != nil {
			return Access{}, fmt.Errorf("external caveat: %w", err)
		}
	}
	return Access{Macaroon: m, External: external}, nil
}

// parseBareJSON parses a macaroon of version 1 or 2. The macaroon library panics on
// some input that is not an object, so only an object reaches it.
func parseBareJSON(data []byte) (*macaroon.Macaroon, error) {
	if len(data) == 0 || data[0] != '{' {
		return nil, errNotMacaroon
	}
	m := new(macaroon.Macaroon)
	if err := m.UnmarshalJSON(data); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotMacaroon, err)
	}
	return m, nil
}

// caveatFor returns the id and external part of the third-party caveat that is
// addressed to location.
func (a Access) caveatFor(location string) (id, external []byte, err error) {
	if a.Macaroon == nil {
		return nil, nil, errors.New("access macaroon is missing")
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

// complete returns an error if the access macaroon needs discharges from others
// than location.
func (a Access) complete(location string) error {
	for _, c := range a.Macaroon.Caveats() {
		if len(c.VerificationId) > 0 && strings.TrimSuffix(c.Location, "/") != location {
			return fmt.Errorf("access macaroon needs a discharge by %q too, which a bundle would lack", c.Location)
		}
	}
	return nil
}
