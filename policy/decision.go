package policy

import "time"

// Effect is the kind of a decision.
type Effect string

// The effects. EffectAllow accepts the proposal of the core, which for fork,
// stale and reuse is a refusal and perhaps a revocation: no policy turns
// those into a discharge. EffectDeny then softens a revocation to a refusal.
const (
	EffectAllow      Effect = "allow"
	EffectDeny       Effect = "deny"        // refuse this request; the session lives on
	EffectRevoke     Effect = "revoke"      // end this session
	EffectRevokeUser Effect = "revoke_user" // end every session of this user
	EffectReauth     Effect = "reauth"      // end this session, telling the client to log in again and keep its device keys
	EffectDefer      Effect = "defer"       // not now: the client comes back later, nothing changes
)

// Decision is the result of a policy. The zero value is no decision at all and
// is treated as an error.
type Decision struct {
	Effect       Effect            `json:"effect"`
	TTL          time.Duration     `json:"ttl,omitempty"`           // lifetime of the discharge; 0: as proposed
	Caveats      []string          `json:"caveats,omitempty"`       // first-party conditions to add to the discharge
	Code         string            `json:"code,omitempty"`          // reason in the answer to the client, [a-z0-9_]; "": policy
	Message      string            `json:"message,omitempty"`       // sentence in the answer to the client
	SoftLogout   bool              `json:"soft_logout,omitempty"`   // client should keep its device keys; implied by reauth
	Labels       map[string]string `json:"labels,omitempty"`        // to store with the session; an empty value removes
	KeepSessions int               `json:"keep_sessions,omitempty"` // with allow at activation: revoke the user's least recently used sessions beyond this many; 0: none
	RetryAfter   time.Duration     `json:"retry_after,omitempty"`   // with defer
	Rule         string            `json:"rule,omitempty"`          // policy/rule that decided, for logs and metrics
	Hash         string            `json:"hash,omitempty"`          // version of the rule set that decided, for logs
}

// Effects returns all effects, in the order of the documentation.
func Effects() []Effect {
	return []Effect{EffectAllow, EffectDeny, EffectRevoke, EffectRevokeUser, EffectReauth, EffectDefer}
}

// DefaultName is the name of the policy that applies where none is named.
const DefaultName = "default"
