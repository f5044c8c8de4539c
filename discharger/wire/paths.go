package wire

// Paths for clients. All but the last three are used with POST.
const (
	PathDischarge   = "/discharge"
	PathLogout      = "/logout"
	PathOwnSessions = "/sessions"        // answered with SessionsResponse
	PathRevokeOwn   = "/sessions/revoke" // ends one of the user's sessions
	PathInfo        = "/discharge/info"  // answered with InfoResponse
	PathPublicKey   = "/publickey"       // answered with PublicKeyResponse; for first parties from before PathInfo

	PathJWKS = "/.well-known/jwks.json" // RFC 7517: what security events are signed with
)

// Paths for homeservers, which authorize themselves with their API key and
// reach nothing but their own sessions. What is in braces stands for one
// segment, percent-encoded.
const (
	PathUserSessions = "/v1/users/{user}/sessions"         // GET lists, DELETE ends all
	PathUserSession  = "/v1/users/{user}/sessions/{id}"    // DELETE ends one
	PathUserDevice   = "/v1/users/{user}/devices/{device}" // DELETE ends those of a device
	PathSessions     = "/v1/sessions"                      // DELETE ends all of the homeserver's
	PathRevoke       = "/v1/revoke"                        // POST: several revocations, answered one by one
	PathMarks        = "/v1/marks"                         // GET: revocation marks; DELETE lifts those in the future
	PathSeen         = "/v1/seen"                          // POST: discharges of these epochs are in use
	PathRevocations  = "/v1/revocations"                   // GET: server-sent events
	PathServiceReady = "/v1/ready"                         // GET: 200 while the service can decide, 503 otherwise
)

// Paths for operators, on a listener of their own.
const (
	PathHealth  = "/healthz" // the process runs
	PathReady   = "/readyz"  // it can serve: the store answers, and it is not draining
	PathMetrics = "/metrics" // Prometheus
)

// Parameters of the paths for clients that are used with POST, in the query or in
// a form body.
const (
	ParamID        = "id"         // caveat id that is text
	ParamID64      = "id64"       // caveat id in base64; goes before ParamID
	ParamCaveat64  = "caveat64"   // the caveat in base64, where the id is only a name for it
	ParamToken     = "token"      // discharge token that is text
	ParamToken64   = "token64"    // discharge token in base64; goes before ParamToken
	ParamTokenKind = "token-kind" // required with a token: TokenKindRefresh
	ParamRequestID = "request-id" // names one refresh in all its attempts; up to MaxRequestID bytes
	ParamScope     = "scope"      // PathLogout: ScopeSession, or ScopeUser
	ParamSession   = "session"    // PathRevokeOwn: id of the session to end
	ParamClientIP  = "client-ip"  // address of the client for whom a homeserver asks
	ParamUserAgent = "user-agent" // User-Agent of that client
)

// Parameters of the paths for homeservers.
const (
	ParamExcept       = "except"        // id of a session to leave alone
	ParamExceptDevice = "except_device" // device of the user whose sessions to leave alone
	ParamDevices      = "devices"       // "true": leave sessions alone that have no device
	ParamKind         = "kind"          // KindHard, which is the default, or KindSoft
	ParamAge          = "age"           // milliseconds since the sessions ended for the caller
	ParamEpoch        = "epoch"         // PathUserSession: of the discharge by which the client proved itself
	ParamEnded        = "ended"         // PathUserSessions, GET: "true" lists what ended and is remembered
	ParamUser         = "user"          // PathMarks: also the user's mark
)

// TokenKindRefresh is the token-kind of a refresh token.
const TokenKindRefresh = "refresh"

// Scope says what a logout ends.
type Scope string

// The scopes of a logout.
const (
	ScopeSession Scope = "session" // this session; the default
	ScopeUser    Scope = "user"    // every session of the session's user
)

// Headers, beside the usual ones.
const (
	// HeaderProtocol is the version of the bakery protocol that a client speaks. It
	// changes no answer.
	HeaderProtocol = "Bakery-Protocol-Version"
	// HeaderRetryAfter carries a whole number of seconds, with 429 and 503.
	HeaderRetryAfter = "Retry-After"
	// HeaderAuthorization carries AuthorizationPrefix and a homeserver's API
	// key.
	HeaderAuthorization = "Authorization"
	// HeaderLastEventID resumes PathRevocations after an event.
	HeaderLastEventID = "Last-Event-ID"
)

const (
	// AuthorizationPrefix comes before the API key in HeaderAuthorization. The
	// service accepts the word in any case.
	AuthorizationPrefix = "Bearer "
	// ContentType is the Content-Type of every JSON answer, to the letter:
	// bakery clients compare the whole of it.
	ContentType = "application/json"
	// ContentTypeForm is the Content-Type of parameters in a body.
	ContentTypeForm = "application/x-www-form-urlencoded"
	// ProtocolVersion is the latest version of the bakery protocol, the value
	// of HeaderProtocol.
	ProtocolVersion = "3"
	// MaxRequestID is the greatest length of a request-id, in bytes.
	MaxRequestID = 64
)
