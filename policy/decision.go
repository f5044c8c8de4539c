package policy

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Effect is the kind of a decision.
type Effect string

// The effects. EffectAllow accepts the proposal of the core, which is a refusal or
// a revocation if the replay is fork, stale or reuse: no policy turns
// it into a discharge. EffectDeny changes a proposed revocation to a refusal.
const (
	EffectAllow      Effect = "allow"
	EffectDeny       Effect = "deny"        // refuse this request; the session goes on
	EffectRevoke     Effect = "revoke"      // end this session
	EffectRevokeUser Effect = "revoke_user" // end every session of this user
	EffectReauth     Effect = "reauth"      // end this session softly: the client logs in again and keeps its device keys
	EffectDefer      Effect = "defer"       // refuse for now: the client retries later, the session is unchanged
)

// Decision is the result of a policy. The zero value is not a decision: [Decision.Narrow]
// refuses it.
type Decision struct {
	Effect       Effect            `json:"effect"`
	TTL          time.Duration     `json:"ttl,omitempty"`           // lifetime of the discharge; 0: as proposed
	Caveats      []string          `json:"caveats,omitempty"`       // first-party conditions to add to the discharge
	Code         string            `json:"code,omitempty"`          // reason in the answer to the client, [a-z0-9_]; "": policy
	Message      string            `json:"message,omitempty"`       // sentence in the answer to the client
	SoftLogout   bool              `json:"soft_logout,omitempty"`   // the client keeps its device keys; implied by reauth
	Labels       map[string]string `json:"labels,omitempty"`        // to store with the session; an empty value removes
	KeepSessions int               `json:"keep_sessions,omitempty"` // with allow at activation: revoke the user's least recently used sessions beyond this many; 0: none
	RetryAfter   time.Duration     `json:"retry_after,omitempty"`   // with defer; at most MaxRetryAfter
	Rule         string            `json:"rule,omitempty"`          // policy/rule that decided, for logs and metrics
	Hash         string            `json:"hash,omitempty"`          // version of the rule set that decided, for logs
}

// Parts returns the parts of a decision as text by JSON name, for
// tests and comparisons, without rule and hash.
func (d Decision) Parts() map[string]string {
	var caveats, labels []string
	for _, c := range d.Caveats {
		caveats = append(caveats, strconv.Quote(c))
	}
	for _, k := range slices.Sorted(maps.Keys(d.Labels)) {
		labels = append(labels, k+": "+strconv.Quote(d.Labels[k]))
	}
	return map[string]string{
		"effect":        string(d.Effect),
		"ttl":           d.TTL.String(),
		"caveats":       "[" + strings.Join(caveats, ", ") + "]",
		"code":          d.Code,
		"message":       d.Message,
		"soft_logout":   strconv.FormatBool(d.SoftLogout),
		"labels":        "{" + strings.Join(labels, ", ") + "}",
		"keep_sessions": strconv.Itoa(d.KeepSessions),
		"retry_after":   d.RetryAfter.String(),
	}
}

// Clone returns a copy that shares no slice or map with d.
func (d Decision) Clone() Decision {
	d.Caveats, d.Labels = slices.Clone(d.Caveats), maps.Clone(d.Labels)
	return d
}

// Effects returns all effects in documentation order.
func Effects() []Effect {
	return []Effect{EffectAllow, EffectDeny, EffectRevoke, EffectRevokeUser, EffectReauth, EffectDefer}
}

// DefaultName is the name of the policy of sessions and homeservers that name none.
const DefaultName = "default"
