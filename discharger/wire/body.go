package wire

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// DischargeResponse is the body of a discharge.
type DischargeResponse struct {
	// Macaroon is the unbound discharge as the bakery's clients expect it: for
	// a V1 or V2 caveat the macaroon in JSON of that version, for a V3 caveat
	// {"m": macaroon, "v": 3, "ns": namespace}.
	Macaroon json.RawMessage `json:"Macaroon"`
	// RefreshToken is the token for the next discharge, in mode rotate; see
	// the type [RefreshToken]. It is secret.
	RefreshToken string `json:"RefreshToken,omitempty"`
	// ExpiresIn is the lifetime of the discharge in milliseconds, reckoned
	// from the service's answer.
	ExpiresIn int64 `json:"ExpiresIn"`
}

// InfoResponse is the body of PathInfo. First parties seal caveats to the
// key, in no later version than the one given.
type InfoResponse struct {
	PublicKey string `json:"PublicKey"` // X25519, 32 bytes in standard base64 with padding
	Version   int    `json:"Version"`   // latest version of caveats: 3
}

// PublicKeyResponse is the body of PathPublicKey. Who asks there seals V1
// caveats.
type PublicKeyResponse struct {
	PublicKey string `json:"PublicKey"` // as in InfoResponse
}

// ErrorResponse is the body of every answer that is not a success.
type ErrorResponse struct {
	Code    string       `json:"Code"`           // one of the constants
	Message string       `json:"Message"`        // a sentence for people
	Info    *RefusalInfo `json:"Info,omitempty"` // with CodePermissionDenied
}

// RefusalInfo says why a session gets no discharge.
type RefusalInfo struct {
	// Reason is one of the constants, or what a policy says: [a-z0-9_].
	Reason string `json:"Reason"`
	// Ended means that the session is over. Otherwise the refusal is about
	// this request, and the session is as it was.
	Ended bool `json:"Ended"`
	// SoftLogout, with Ended, means that after logging in again the client may
	// go on with the encryption keys it has. Without Ended it is absent.
	SoftLogout *bool `json:"SoftLogout,omitempty"`
}

// Codes of an ErrorResponse. The first two are the bakery's.
const (
	CodeBadRequest       = "bad request"        // 400
	CodePermissionDenied = "permission denied"  // 401: decided, and final for this request
	CodeUnauthorized     = "unauthorized"       // 401: wrong API key, or none where one is needed; says nothing about a session
	CodeNotFound         = "not found"          // 404
	CodeMethodNotAllowed = "method not allowed" // 405
	CodeTooLarge         = "request too large"  // 413
	CodeTooManyRequests  = "too many requests"  // 429
	CodeUnavailable      = "unavailable"        // 503: undecided
)

// Reasons of a refusal. A policy may give others.
const (
	ReasonSessionEnded       = "session_ended"       // logged out or revoked; softly also if there is no record of it
	ReasonSessionExpired     = "session_expired"     // too old, or idle for too long
	ReasonSessionLost        = "session_lost"        // the service lost its data since
	ReasonReplaced           = "replaced"            // by a newer login on the same device
	ReasonTokenRequired      = "token_required"      // mode rotate, and no refresh token was presented
	ReasonTokenInvalid       = "token_invalid"       // not a token of this session, or restricted to another time or place
	ReasonTokenSuperseded    = "token_superseded"    // a newer refresh token is in use already
	ReasonTokenReused        = "token_reused"        // two parties hold one token: the session was ended
	ReasonHomeserverRequired = "homeserver_required" // only the session's homeserver may do this
	ReasonPolicy             = "policy"              // the policy says no
)

const redacted = "REDACTED"

// Format writes how long the discharge lives, and that the rest is REDACTED,
// whatever the verb.
func (r DischargeResponse) Format(s fmt.State, _ rune) {
	io.WriteString(s, "discharge for "+(time.Duration(r.ExpiresIn)*time.Millisecond).String()+" "+redacted)
}
