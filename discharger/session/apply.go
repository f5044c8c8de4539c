package session

import (
	"fmt"
	"maps"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/policy"
)

// Ruling is an outcome after the policy's decision.
type Ruling struct {
	Outcome
	TTL        time.Duration // lifetime of the discharge, if one is issued
	Caveats    []string      // first-party conditions to add to it
	Message    string        // sentence for the client, with Reason
	RetryAfter time.Duration // with NotYet
}

// Apply applies a narrowed decision of a policy (see [policy.Ask]) to an outcome. It
// only restricts: a refusal stays one, and no lifetime exceeds grant.MaxTTL.
func Apply(o Outcome, grant policy.Grant, d policy.Decision, now int64, user GenerationRecord) (Ruling, error) {
	r := Ruling{Outcome: o, Message: d.Message}
	switch d.Effect {
	case policy.EffectAllow:
		if o.Reason != "" {
			return r, nil
		}
		r.TTL = grant.TTL
		if d.TTL > 0 {
			r.TTL = min(d.TTL, grant.MaxTTL)
		}
		r.Caveats = d.Caveats
		return r, r.label(d.Labels)
	case policy.EffectDefer:
		return Ruling{Outcome: Outcome{NotYet: true}, RetryAfter: d.RetryAfter}, nil
	case policy.EffectDeny:
		r.Next, r.NextUser, r.NextDevice, r.Replaces = nil, nil, nil, nil
		if r.Ended {
			r.Ended, r.End, r.Reason = false, revocation.End{}, ReasonTokenSuperseded
		}
	case policy.EffectRevoke, policy.EffectReauth:
		r.Outcome = o.ended(revocation.End{Soft: d.SoftLogout || d.Effect == policy.EffectReauth, Cause: revocation.CausePolicy, Code: d.Code, At: now})
	case policy.EffectRevokeUser:
		end := revocation.End{Soft: d.SoftLogout, Cause: revocation.CausePolicy, Code: d.Code, At: now}
		next := user.Raise(max(now, o.Session.Created), caveat.SessionID{}, end)
		r.Outcome = o.ended(end)
		r.Next, r.NextUser = nil, &next
	default:
		return Ruling{}, fmt.Errorf("policy rule %q: effect %q is unknown", d.Rule, d.Effect)
	}
	r.Issue = nil
	if d.Code != "" {
		r.Reason = Reason(d.Code)
	} else if r.Reason == "" {
		r.Reason = ReasonPolicy
	}
	return r, nil
}

// label stores a policy's labels with the session; an empty value removes one.
func (r *Ruling) label(set map[string]string) error {
	if len(set) == 0 {
		return nil
	}
	base := r.Session
	if r.Next != nil {
		base = r.Next
	}
	labels := maps.Clone(base.Labels)
	if labels == nil {
		labels = make(map[string]string, len(set))
	}
	for k, v := range set {
		if v == "" {
			delete(labels, k)
		} else {
			labels[k] = v
		}
	}
	if len(labels) > policy.MaxLabels {
		return fmt.Errorf("policy sets %d labels of a session, more than %d", len(labels), policy.MaxLabels)
	}
	if maps.Equal(labels, base.Labels) {
		return nil
	}
	next := *base
	next.Labels = labels
	r.Next, r.Touch = &next, false
	return nil
}
