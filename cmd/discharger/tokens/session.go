package tokens

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/atomicfile"
	"github.com/discharger/discharger/discharger/client"
)

// savedSession is a session file: the state of a client. Discharge makes
// it, refresh changes it, logout and verify read it.
type savedSession struct {
	Service      string    `json:"service"`                 // URL of the service
	Access       string    `json:"access"`                  // access macaroon, as text or JSON
	RefreshToken string    `json:"refresh_token,omitempty"` // in mode rotate
	RequestID    string    `json:"request_id,omitempty"`    // of a refresh without an answer yet
	Bundle       string    `json:"bundle"`                  // for the homeserver
	Expires      time.Time `json:"expires"`                 // of the bundle
}

// parseSession reads a session file.
func parseSession(data []byte) (*savedSession, error) {
	var s savedSession
	if err := json.Unmarshal(data, &s, json.RejectUnknownMembers(true)); err != nil || s.Access == "" || s.Service == "" {
		return nil, errors.New("not a session file; discharger discharge makes one")
	}
	return &s, nil
}

// save replaces the file that the session was read from.
func (s *savedSession) save(path string) error {
	b, err := json.Marshal(s, jsontext.WithIndent("  "))
	if err != nil {
		return fmt.Errorf("write session: %w", err)
	}
	return atomicfile.Replace(path, append(b, '\n'))
}

// take stores the answer to a discharge in the session.
func (s *savedSession) take(g client.Grant) error {
	bundle, err := g.Bundle()
	if err != nil {
		return err
	}
	s.Bundle, s.Expires, s.RequestID = bundle, g.Expires.UTC().Truncate(time.Millisecond), ""
	if g.Token != "" {
		s.RefreshToken = string(g.Token)
	}
	return nil
}

// location returns the location of the third-party caveat. It selects the caveat, and
// is never the target of a request.
func location(a client.Access) (string, error) {
	for _, c := range a.Macaroon.Caveats() {
		if len(c.VerificationId) > 0 {
			return c.Location, nil
		}
	}
	return "", errors.New("the access macaroon has no third-party caveat")
}
