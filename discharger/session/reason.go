package session

import "github.com/discharger/discharger/discharger/revocation"

// Reason says why something was refused. Its text is part of the wire contract.
type Reason string

// The reasons for a refusal by the core.
const (
	ReasonSessionEnded       Reason = "session_ended"       // logged out or revoked; or there is no record of it
	ReasonSessionExpired     Reason = "session_expired"     // too old, or idle for too long
	ReasonSessionLost        Reason = "session_lost"        // the store lost its data since
	ReasonReplaced           Reason = "replaced"            // a newer login on the same device
	ReasonTokenRequired      Reason = "token_required"      // mode rotate, and no refresh token was presented
	ReasonTokenInvalid       Reason = "token_invalid"       // the refresh token is not ours, or may not be used here and now
	ReasonTokenSuperseded    Reason = "token_superseded"    // a newer refresh token is in use already; fork and stale
	ReasonTokenReused        Reason = "token_reused"        // two parties hold one token: the session was ended
	ReasonHomeserverRequired Reason = "homeserver_required" // only the session's homeserver may do this
	ReasonPolicy             Reason = "policy"              // unless the policy gives another one
)

// reasonOf returns the reason of refusals because of an end.
func ReasonOf(e revocation.End) Reason {
	switch e.Cause {
	case revocation.CauseReuse:
		return ReasonTokenReused
	case revocation.CauseExpired:
		return ReasonSessionExpired
	case revocation.CauseReplaced:
		return ReasonReplaced
	case revocation.CauseLost:
		return ReasonSessionLost
	case revocation.CausePolicy:
		if e.Code != "" {
			return Reason(e.Code)
		}
		return ReasonPolicy
	}
	return ReasonSessionEnded
}
