package gateway

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Matrix's error codes, as far as the gateway says or looks for them.
const (
	codeMissingToken  = "M_MISSING_TOKEN"
	codeUnknownToken  = "M_UNKNOWN_TOKEN"
	codeForbidden     = "M_FORBIDDEN"
	codeGuest         = "M_GUEST_ACCESS_FORBIDDEN"
	codeUnrecognized  = "M_UNRECOGNIZED"
	codeNotJSON       = "M_NOT_JSON"
	codeBadJSON       = "M_BAD_JSON"
	codeInvalidParam  = "M_INVALID_PARAM"
	codeMissingParam  = "M_MISSING_PARAM"
	codeLimitExceeded = "M_LIMIT_EXCEEDED"
	codeTooLarge      = "M_TOO_LARGE"
	codeUnknown       = "M_UNKNOWN"
)

// failure is an answer of the gateway's own.
type failure struct {
	status     int
	code       string // Matrix's error code
	message    string // for people
	softLogout bool   // with M_UNKNOWN_TOKEN: keep the encryption keys
	retryAfter time.Duration
	plain      bool // as text/plain, for clients that take any JSON for a logout

	outcome outcome // for the metrics
}

func unknownToken(message string, softLogout bool) *failure {
	return &failure{
		status: http.StatusUnauthorized, code: codeUnknownToken, message: message, softLogout: softLogout, outcome: outcomeRefused,
	}
}

func missingToken(message string) *failure {
	return &failure{status: http.StatusUnauthorized, code: codeMissingToken, message: message, outcome: outcomeRefused}
}

func forbidden(message string) *failure {
	return &failure{status: http.StatusForbidden, code: codeForbidden, message: message, outcome: outcomeForbidden}
}

// badBody is for a body that is not a JSON object, or one that programs read in
// different ways.
func badBody(data []byte) *failure {
	switch {
	case !json.Valid(data):
		return badRequest(codeNotJSON, "Content not JSON.")
	case bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")):
		return badRequest(codeBadJSON, "Content has a name twice, too many names, or is not Unicode.")
	}
	return badRequest(codeBadJSON, "Content must be a JSON object.")
}

func badRequest(code, message string) *failure {
	return &failure{status: http.StatusBadRequest, code: code, message: message, outcome: outcomeMalformed}
}

// unrecognized is for a request that no homeserver has a route for.
func unrecognized(status int) *failure {
	return &failure{status: status, code: codeUnrecognized, message: "Unrecognized request.", outcome: outcomeDenied}
}

// undecided is for what may be otherwise in a moment. It never says anything
// about a session.
func undecided(retryAfter time.Duration) *failure {
	if retryAfter <= 0 {
		retryAfter = 2 * time.Second
	}
	return &failure{
		status: http.StatusServiceUnavailable, code: codeUnknown, outcome: outcomeUnavailable, retryAfter: retryAfter,
		message: "This cannot be decided at the moment. Try again.",
	}
}

func upstreamFailed() *failure {
	return &failure{
		status: http.StatusBadGateway, code: codeUnknown, outcome: outcomeUpstream,
		message: "The homeserver cannot be reached at the moment. Try again.",
	}
}

// asText makes it text/plain.
func (f *failure) asText() *failure {
	g := *f
	g.plain = true
	return &g
}

// cors sets the headers that browsers have to see on every answer, and that no
// cache may keep it. They are Synapse's, which has all of the specification's and of
// Dendrite's that browsers request.
func cors(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "X-Requested-With, Content-Type, Authorization, Date")
	h.Set("Access-Control-Expose-Headers", "Synapse-Trace-Id, Server")
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
}

// write sends the failure.
func (f *failure) write(w http.ResponseWriter) {
	h := w.Header()
	cors(h)
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((f.retryAfter+time.Second-1)/time.Second), 10))
	}
	body := f.body()
	if f.plain {
		h.Set("Content-Type", "text/plain; charset=utf-8")
	} else {
		h.Set("Content-Type", "application/json")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(f.status)
	_, _ = w.Write(body) // the client has gone: nothing to do
}

func (f *failure) body() []byte {
	if f.plain {
		return []byte(f.message + "\n")
	}
	o := object{{"errcode", quote(f.code)}, {"error", quote(f.message)}}
	if f.code == codeUnknownToken {
		o = append(o, member{"soft_logout", jsontext.Value(strconv.FormatBool(f.softLogout))})
	}
	if f.retryAfter > 0 {
		o = append(o, member{"retry_after_ms", jsontext.Value(strconv.FormatInt(f.retryAfter.Milliseconds(), 10))})
	}
	return o.encode()
}
