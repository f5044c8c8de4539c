// Package wire has the wire contract of the discharger as constants and types:
// paths, parameters, headers, bodies, codes and reasons. PROTOCOL.md beside it is the
// contract in prose, for any language.
//
// It encodes and decodes, and never sends: it imports no HTTP client and no macaroon
// library. Package client sends, package server answers, and package bundle has the
// text that a client presents to its homeserver.
//
// Writers use one spelling of everything and readers accept what the contract allows:
// base64 in four alphabets ([DecodeBase64]), unknown members of answers and events.
// Requests are read strictly: an unknown member of a [RevokeEntry] is an error, since
// it could narrow a revocation.
package wire

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// DischargeResponse is the answer to PathDischarge.
type DischargeResponse struct {
	// Macaroon is the unbound discharge: for a V1 or V2 caveat the macaroon in JSON of
	// that version, for a V3 caveat {"m": macaroon, "v": 3, "ns": namespace}.
	Macaroon json.RawMessage `json:"Macaroon"`
	// RefreshToken is the token for the next discharge, in mode rotate. It is secret.
	RefreshToken string `json:"RefreshToken,omitempty"`
	// ExpiresIn is the lifetime of the discharge in milliseconds, from the answer on.
	ExpiresIn int64 `json:"ExpiresIn"`
}

// Append appends the JSON of the response to b. The result is that of encoding/json,
// which would parse the macaroon again for every discharge.
func (r DischargeResponse) Append(b []byte) []byte {
	b = append(append(b, `{"Macaroon":`...), r.Macaroon...)
	if r.RefreshToken != "" {
		b = append(b, `,"RefreshToken":`...)
		b, _ = jsontext.AppendQuote(b, r.RefreshToken) // invalid UTF-8 becomes U+FFFD
	}
	b = append(b, `,"ExpiresIn":`...)
	return append(strconv.AppendInt(b, r.ExpiresIn, 10), '}')
}

// Format writes the lifetime and REDACTED, for every verb.
func (r DischargeResponse) Format(s fmt.State, _ rune) {
	io.WriteString(s, "discharge for "+(time.Duration(r.ExpiresIn)*time.Millisecond).String()+" REDACTED")
}

// InfoResponse is the answer to PathInfo. Homeservers seal caveats of at most this
// version to the key.
type InfoResponse struct {
	PublicKey string `json:"PublicKey"` // X25519, 32 bytes in standard base64 with padding
	Version   int    `json:"Version"`   // 3
}

// PublicKeyResponse is the answer to PathPublicKey, for homeservers that seal V1 caveats.
type PublicKeyResponse struct {
	PublicKey string `json:"PublicKey"` // as in InfoResponse
}

// ErrorResponse is every answer that is not a success.
type ErrorResponse struct {
	Code    string       `json:"Code"`           // a Code constant
	Message string       `json:"Message"`        // a sentence for people
	Info    *RefusalInfo `json:"Info,omitempty"` // with CodePermissionDenied
}

// RefusalInfo is the reason of a refusal.
type RefusalInfo struct {
	// Reason is a Reason constant, or one of a policy: [a-z0-9_].
	Reason string `json:"Reason"`
	// Ended: the session is over. Otherwise the refusal concerns this request, and the
	// session is as it was.
	Ended bool `json:"Ended"`
	// SoftLogout, present with Ended only: the client keeps its encryption keys when it
	// logs in again.
	SoftLogout *bool `json:"SoftLogout,omitempty"`
}

// Codes of an ErrorResponse. The first two are the bakery's.
const (
	CodeBadRequest       = "bad request"        // 400
	CodePermissionDenied = "permission denied"  // 401: decided, final for this request
	CodeUnauthorized     = "unauthorized"       // 401: API key is missing or malformed; decides nothing about a session
	CodeNotFound         = "not found"          // 404
	CodeMethodNotAllowed = "method not allowed" // 405
	CodeTooLarge         = "request too large"  // 413
	CodeTooManyRequests  = "too many requests"  // 429
	CodeUnavailable      = "unavailable"        // 503: undecided
)

// Reasons of a refusal. A policy may have others.
const (
	ReasonSessionEnded       = "session_ended"       // logged out or revoked; soft as well without a record
	ReasonSessionExpired     = "session_expired"     // idle or absolute lifetime is over
	ReasonSessionLost        = "session_lost"        // the service lost its data
	ReasonReplaced           = "replaced"            // newer login on the device
	ReasonTokenRequired      = "token_required"      // mode rotate without a refresh token
	ReasonTokenInvalid       = "token_invalid"       // not a token of this session, or restricted to another time or address
	ReasonTokenSuperseded    = "token_superseded"    // a newer refresh token is in use
	ReasonTokenReused        = "token_reused"        // two parties used one token: the session was ended
	ReasonHomeserverRequired = "homeserver_required" // only the homeserver of the session may do this
	ReasonPolicy             = "policy"              // denied by the policy
)

// The names of server-sent events on PathRevocations. Readers ignore names that
// they do not know. Lines that begin with a colon come at the heartbeat's rate
// while there is nothing else, so that silence means that the line is dead.
const (
	EventRevocation = "revocation" // data: a revocation.Event; id: where to resume
	EventGap        = "gap"        // events may be missing; all that are retained follow
	EventCurrent    = "current"    // all retained events were sent; data: a FeedState
)

// FeedState is the data of an EventCurrent.
type FeedState struct {
	// Heartbeat is how often something comes, at least; in milliseconds.
	Heartbeat int64 `json:"heartbeat"`
}
