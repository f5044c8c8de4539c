package secevent

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// EventSessionRevoked is the type of all events (OpenID CAEP 1.0, section 3.1).
const EventSessionRevoked = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"

// Members of an event that CAEP does not define. The framework requires URIs as
// their names.
const (
	// MemberExcept is the subject identifier of a session that did not end, in an
	// event about a user or a device.
	MemberExcept = "https://github.com/discharger/discharger/security-events#except"
	// MemberDevices is true in an event about a user whose sessions without a
	// device did not end.
	MemberDevices = "https://github.com/discharger/discharger/security-events#devices"
	// MemberKind is the kind of end: "hard", after which clients discard their
	// encryption keys, or "soft".
	MemberKind = "https://github.com/discharger/discharger/security-events#kind"
)

// Media types of RFC 8417, in the header of a token and of a request.
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

// sessionRevoked is the CAEP event.
type sessionRevoked struct {
	Timestamp  int64             `json:"event_timestamp"` // Unix seconds
	Initiating string            `json:"initiating_entity"`
	Reason     map[string]string `json:"reason_admin"` // by language
	Except     *identifier       `json:"https://github.com/discharger/discharger/security-events#except,omitempty"`
	Devices    bool              `json:"https://github.com/discharger/discharger/security-events#devices,omitempty"`
	Kind       string            `json:"https://github.com/discharger/discharger/security-events#kind"`
}

// eventID returns the jti of an event, 22 characters of base64url that depend on
// its homeserver and its position in the feed alone.
func eventID(homeserver, position string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "security event\x00%d\x00%s%s", len(homeserver), homeserver, position))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// sign returns the token of an event.
func (w *worker) sign(id string, e *revocation.Event, now time.Time) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss":    w.cfg.Issuer,
		"aud":    w.to.Audience,
		"iat":    now.Unix(),
		"jti":    id,
		"sub_id": subjectOf(e, w.to.Homeserver, w.cfg.Issuer),
		"events": map[string]sessionRevoked{EventSessionRevoked: eventOf(e)},
	})
	t.Header["typ"], t.Header["kid"] = tokenType, w.cfg.Keys.id
	signed, err := t.SignedString(w.cfg.Keys.signing)
	if err != nil {
		return "", fmt.Errorf("sign security event: %w", err)
	}
	return signed, nil
}

func subjectOf(e *revocation.Event, homeserver, issuer string) subject {
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

func eventOf(e *revocation.Event) sessionRevoked {
	who, why := reasonOf(e.Reason)
	r := sessionRevoked{Timestamp: e.At.Unix(), Initiating: who, Reason: map[string]string{"en": why}, Devices: e.Devices, Kind: "hard"}
	if e.Soft {
		r.Kind = "soft"
	}
	if e.Except != (caveat.SessionID{}) {
		r.Except = opaque(e.Except.String())
	}
	return r
}

// reasonOf returns the initiating entity of a revocation, one of CAEP, and its
// reason as a sentence. A homeserver's revocation may be a user's or an operator's;
// its entity is system.
func reasonOf(reason revocation.Cause) (entity, text string) {
	r, ok := map[revocation.Cause][2]string{
		revocation.CauseLogout:   {"user", "The user logged out."},
		revocation.CauseReuse:    {"system", "Two parties held one refresh token."},
		revocation.CausePolicy:   {"policy", "A policy decided so."},
		revocation.CauseLimit:    {"policy", "The user has more sessions than a policy allows."},
		revocation.CauseRevoked:  {"system", "The homeserver ordered it."},
		revocation.CauseExpired:  {"system", "The session expired."},
		revocation.CauseReplaced: {"user", "A newer login on the same device replaced it."},
		revocation.CauseLost:     {"system", "The service lost the data of the session."},
		revocation.CauseAgain:    {"system", "It had ended before."},
	}[reason]
	if !ok {
		return "system", "It was revoked."
	}
	return r[0], r[1]
}
