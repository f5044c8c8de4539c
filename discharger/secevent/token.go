package secevent

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
)

// EventSessionRevoked is the type of every event here (OpenID CAEP 1.0, section
// 3.1).
const EventSessionRevoked = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"

// MemberExcept is a member of an event that is about a user: a session that is
// not meant, as a subject identifier. The framework wants names that an event
// type does not define to be URIs.
const MemberExcept = "https://github.com/discharger/discharger/security-events#except"

// The media types of RFC 8417, in the header of a token and in that of a request.
const (
	tokenType   = "secevent+jwt"
	contentType = "application/" + tokenType
)

// identifier is a subject identifier (RFC 9493): opaque, or iss_sub.
type identifier struct {
	Format  string `json:"format"`
	ID      string `json:"id,omitempty"`
	Issuer  string `json:"iss,omitempty"`
	Subject string `json:"sub,omitempty"`
}

func opaque(id string) *identifier { return &identifier{Format: "opaque", ID: id} }

// subject is a complex subject (OpenID SSF 1.0, section 3.2).
type subject struct {
	Format  string      `json:"format"`
	User    *identifier `json:"user,omitempty"`
	Device  *identifier `json:"device,omitempty"`
	Session *identifier `json:"session,omitempty"`
	Tenant  *identifier `json:"tenant,omitempty"`
}

// sessionRevoked is the event itself.
type sessionRevoked struct {
	Timestamp  int64             `json:"event_timestamp"` // Unix seconds
	Initiating string            `json:"initiating_entity"`
	Reason     map[string]string `json:"reason_admin"` // by language
	Except     *identifier       `json:"https://github.com/discharger/discharger/security-events#except,omitempty"`
}

// eventID names an event for ever: by its homeserver, and where it is in the
// feed. It is 22 characters of base64url.
func eventID(homeserver, position string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "security event\x00%d\x00%s%s", len(homeserver), homeserver, position))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// sign makes the token of an event.
func (c *courier) sign(id string, e *discharger.Ended, now time.Time) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss":    c.cfg.Issuer,
		"aud":    c.to.Audience,
		"iat":    now.Unix(),
		"jti":    id,
		"sub_id": subjectOf(e, c.to.Homeserver, c.cfg.Issuer),
		"events": map[string]sessionRevoked{EventSessionRevoked: eventOf(e)},
	})
	t.Header["typ"], t.Header["kid"] = tokenType, c.cfg.Keys.id
	signed, err := t.SignedString(c.cfg.Keys.signing)
	if err != nil {
		return "", fmt.Errorf("sign security event: %w", err)
	}
	return signed, nil
}

func subjectOf(e *discharger.Ended, homeserver, issuer string) subject {
	s := subject{Format: "complex"}
	if e.All {
		s.Tenant = opaque(homeserver)
		return s
	}
	if e.User != "" {
		s.User = &identifier{Format: "iss_sub", Issuer: issuer, Subject: e.User}
	}
	if e.Session != (caveat.SessionID{}) {
		s.Session = opaque(e.Session.String())
	}
	if e.Device != "" {
		s.Device = opaque(e.Device)
	}
	return s
}

func eventOf(e *discharger.Ended) sessionRevoked {
	who, why := reasonOf(e.Reason)
	r := sessionRevoked{Timestamp: e.At.Unix(), Initiating: who, Reason: map[string]string{"en": why}}
	if e.Except != (caveat.SessionID{}) {
		r.Except = opaque(e.Except.String())
	}
	return r
}

// reasonOf says who brought a revocation about, in the words of CAEP, and why,
// in words for a log. What a homeserver orders may be a user's or an operator's
// wish; here it is the system's.
func reasonOf(reason string) (entity, text string) {
	switch reason {
	case "logout":
		return "user", "The user logged out."
	case "reuse":
		return "system", "Two parties held one refresh token."
	case "policy":
		return "policy", "A policy decided so."
	case "limit":
		return "policy", "The user has more sessions than a policy allows."
	case "revoked":
		return "system", "The homeserver ordered it."
	case "again":
		return "system", "It had ended before, and somebody came back to it."
	}
	return "system", "It was revoked."
}
