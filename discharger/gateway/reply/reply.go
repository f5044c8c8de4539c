// Package reply holds the answers that the gateway gives itself, in the form of the
// Matrix client-server API, and the outcome of a request for metrics and logs.
//
// A 401 M_UNKNOWN_TOKEN always carries soft_logout: with false, clients delete their
// encryption keys. A request that is not decided is 503 and never states anything
// about a session.
package reply

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
)

// Refusal is an answer of the gateway's own.
type Refusal struct {
	Status     int
	Code       string // Matrix's error code
	Message    string // for people
	SoftLogout bool   // with M_UNKNOWN_TOKEN: keep the encryption keys
	RetryAfter time.Duration
	Plain      bool // as text/plain, for clients that take any JSON for a logout

	Outcome Outcome
}

// UnknownToken returns 401 M_UNKNOWN_TOKEN.
func UnknownToken(message string, softLogout bool) *Refusal {
	return &Refusal{
		Status: http.StatusUnauthorized, Code: matrix.CodeUnknownToken, Message: message, SoftLogout: softLogout, Outcome: outcomeRefused,
	}
}

// MissingToken returns 401 M_MISSING_TOKEN.
func MissingToken(message string) *Refusal {
	return &Refusal{Status: http.StatusUnauthorized, Code: matrix.CodeMissingToken, Message: message, Outcome: outcomeRefused}
}

// Forbidden returns 403 M_FORBIDDEN.
func Forbidden(message string) *Refusal {
	return &Refusal{Status: http.StatusForbidden, Code: matrix.CodeForbidden, Message: message, Outcome: outcomeForbidden}
}

// BadBody returns the refusal of a body that [jsonbody.Parse] rejects.
func BadBody(data []byte) *Refusal {
	switch {
	case !json.Valid(data):
		return BadRequest(matrix.CodeNotJSON, "Content not JSON.")
	case bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")):
		return BadRequest(matrix.CodeBadJSON, "Content has a name twice, too many names, or is not Unicode.")
	}
	return BadRequest(matrix.CodeBadJSON, "Content must be a JSON object.")
}

// BadRequest returns 400 with an error code.
func BadRequest(code, message string) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Code: code, Message: message, Outcome: OutcomeMalformed}
}

// Unrecognized returns the refusal of a request without a route.
func Unrecognized(status int) *Refusal {
	return &Refusal{Status: status, Code: matrix.CodeUnrecognized, Message: "Unrecognized request.", Outcome: outcomeDenied}
}

// Undecided returns 503 for a request to be repeated. It states nothing about a
// session. A delay of 0 is two seconds.
func Undecided(retryAfter time.Duration) *Refusal {
	if retryAfter <= 0 {
		retryAfter = 2 * time.Second
	}
	return &Refusal{
		Status: http.StatusServiceUnavailable, Code: matrix.CodeUnknown, Outcome: OutcomeUnavailable, RetryAfter: retryAfter,
		Message: "This cannot be decided at the moment. Try again.",
	}
}

// UpstreamFailed returns 502 for a homeserver that does not answer.
func UpstreamFailed() *Refusal {
	return &Refusal{
		Status: http.StatusBadGateway, Code: matrix.CodeUnknown, Outcome: OutcomeUpstream,
		Message: "The homeserver cannot be reached at the moment. Try again.",
	}
}

// Text returns the refusal as text/plain.
func (f *Refusal) Text() *Refusal {
	g := *f
	g.Plain = true
	return &g
}

// SetCORS sets the headers of cross-origin requests, and those against caching. They are
// Synapse's, a superset of the specification's and of Dendrite's that browsers request.
func SetCORS(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "X-Requested-With, Content-Type, Authorization, Date")
	h.Set("Access-Control-Expose-Headers", "Synapse-Trace-Id, Server")
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
}

// Write sends the refusal.
func (f *Refusal) Write(w http.ResponseWriter) {
	h := w.Header()
	SetCORS(h)
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((f.RetryAfter+time.Second-1)/time.Second), 10))
	}
	body := f.body()
	if f.Plain {
		h.Set("Content-Type", "text/plain; charset=utf-8")
	} else {
		h.Set("Content-Type", "application/json")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(f.Status)
	_, _ = w.Write(body) // fails if the client has disconnected
}

func (f *Refusal) body() []byte {
	if f.Plain {
		return []byte(f.Message + "\n")
	}
	var o jsonbody.Object
	o.Set("errcode", jsonbody.Quote(f.Code))
	o.Set("error", jsonbody.Quote(f.Message))
	if f.Code == matrix.CodeUnknownToken {
		o.Set("soft_logout", jsontext.Value(strconv.FormatBool(f.SoftLogout)))
	}
	if f.RetryAfter > 0 {
		o.Set("retry_after_ms", jsonbody.Number(f.RetryAfter.Milliseconds()))
	}
	return o.Encode()
}

// Outcome is the result of a request, for metrics and the log.
type Outcome uint8

// The outcomes. Outcomes is their number.
const (
	outcomeForwarded   Outcome = iota // answered by the homeserver
	OutcomeOwn                        // answered by the gateway
	outcomeRefused                    // the token is invalid
	outcomeForbidden                  // the token does not allow the request
	outcomeDenied                     // the path is not passed on
	OutcomeMalformed                  // the request is malformed
	OutcomeUnavailable                // not decided
	OutcomeUpstream                   // the homeserver did not answer
	OutcomeGone                       // the client has disconnected
	OutcomeSlow                       // the client sent too slowly
	OutcomeLimited                    // too many concurrent requests
	Outcomes
)

var outcomeNames = [Outcomes]string{
	"forwarded", "answered", "refused", "forbidden", "denied", "malformed", "unavailable", "upstream_error", "client_gone", "client_slow", "limited",
}

// String returns the label of the outcome in metrics.
func (o Outcome) String() string { return outcomeNames[o] }
