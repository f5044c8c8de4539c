package wire

// Paths for clients. All but the last three are used with POST.
const (
	PathDischarge   = "/discharge"
	PathLogout      = "/logout"
	PathOwnSessions = "/sessions"              // SessionsResponse
	PathRevokeOwn   = "/sessions/revoke"       // ends one of the user's sessions
	PathInfo        = "/discharge/info"        // InfoResponse
	PathPublicKey   = "/publickey"             // PublicKeyResponse, for homeservers older than PathInfo
	PathJWKS        = "/.well-known/jwks.json" // RFC 7517: public keys of security events
)

// Paths for homeservers, which send their API key and reach their own sessions only. A
// name in braces is one segment, percent-encoded.
const (
	PathUserSessions = "/v1/users/{user}/sessions"         // GET lists, DELETE revokes all
	PathUserSession  = "/v1/users/{user}/sessions/{id}"    // DELETE revokes one
	PathUserDevice   = "/v1/users/{user}/devices/{device}" // DELETE revokes those of a device
	PathSessions     = "/v1/sessions"                      // DELETE revokes all of the homeserver's
	PathRevoke       = "/v1/revoke"                        // POST: several revocations, each with its result
	PathMarks        = "/v1/marks"                         // GET: revocation marks; DELETE lifts those in the future
	PathSeen         = "/v1/seen"                          // POST: epochs whose discharges are in use
	PathRevocations  = "/v1/revocations"                   // GET: server-sent events
	PathServiceReady = "/v1/ready"                         // GET: 200 while the service can decide, 503 otherwise
)

// Paths for operators, on a listener of their own.
const (
	PathHealth  = "/healthz" // 200 while the process runs
	PathReady   = "/readyz"  // 200 while the store answers and the process does not drain
	PathMetrics = "/metrics" // Prometheus
)

// Parameters of the paths for clients that are used with POST, in the query or in a
// form body.
const (
	ParamID        = "id"         // caveat id as text
	ParamID64      = "id64"       // caveat id in base64; precedes ParamID
	ParamCaveat64  = "caveat64"   // the caveat in base64, where the id only stands for it
	ParamToken     = "token"      // refresh token in base64
	ParamToken64   = "token64"    // the same; precedes ParamToken
	ParamTokenKind = "token-kind" // required with a token: TokenKindRefresh
	ParamRequestID = "request-id" // the same in all attempts of one refresh; up to MaxRequestID bytes
	ParamScope     = "scope"      // PathLogout: ScopeSession or ScopeUser
	ParamSession   = "session"    // PathRevokeOwn: id of the session to end
	ParamClientIP  = "client-ip"  // from a homeserver: address of the client
	ParamUserAgent = "user-agent" // from a homeserver: User-Agent of the client
)

// Parameters of the paths for homeservers.
const (
	ParamExcept       = "except"        // id of a session that is left alone
	ParamExceptDevice = "except_device" // device of the user that is left alone
	ParamDevices      = "devices"       // "true": sessions without a device are left alone
	ParamKind         = "kind"          // KindHard, the default, or KindSoft
	ParamAge          = "age"           // milliseconds since the end for the caller
	ParamEpoch        = "epoch"         // PathUserSession: of the discharge by which the client proved itself
	ParamEnded        = "ended"         // PathUserSessions, GET: "true" lists tombstones
	ParamUser         = "user"          // PathMarks: also the marks of the user
)

// TokenKindRefresh is the token-kind of a refresh token.
const TokenKindRefresh = "refresh"

// Scope is the scope of a logout.
type Scope string

// The scopes of a logout.
const (
	ScopeSession Scope = "session" // this session; the default
	ScopeUser    Scope = "user"    // every session of the session's user
)

// Headers of the contract.
const (
	HeaderProtocol      = "Bakery-Protocol-Version" // of the client; it changes no answer
	HeaderRetryAfter    = "Retry-After"             // seconds, with 429 and 503
	HeaderAuthorization = "Authorization"           // AuthorizationPrefix and an API key
	HeaderLastEventID   = "Last-Event-ID"           // PathRevocations: continue after this event
)

const (
	// AuthorizationPrefix precedes the API key. The service accepts it in any case.
	AuthorizationPrefix = "Bearer "
	// ContentType is the Content-Type of JSON answers. Bakery clients compare all of it.
	ContentType = "application/json"
	// ContentTypeForm is the Content-Type of parameters in a body.
	ContentTypeForm = "application/x-www-form-urlencoded"
	// ProtocolVersion is the latest version of the bakery protocol.
	ProtocolVersion = "3"
	// MaxRequestID is the greatest length of a request-id, in bytes.
	MaxRequestID = 64
)
