package revocation

// Cause is the cause of an end. Its text is part of the wire contract, as the reason
// of an event in the feed.
type Cause string

// The causes.
const (
	CauseLogout   Cause = "logout"   // by the client, or by another client of its user
	CauseReuse    Cause = "reuse"    // two parties held one refresh token
	CausePolicy   Cause = "policy"   // a policy decided so
	CauseLimit    Cause = "limit"    // more sessions than a policy allows
	CauseRevoked  Cause = "revoked"  // by the homeserver or an operator
	CauseExpired  Cause = "expired"  // idle or absolute lifetime, or the time in the condition
	CauseReplaced Cause = "replaced" // a newer login on the same device
	CauseLost     Cause = "lost"     // the store lost its data

	// CauseAgain is the reason of an event that was published again: the
	// revocation is older than the event.
	CauseAgain Cause = "again"
)

// End is the end of sessions. After a hard end clients discard their encryption
// keys; after a soft end they log in again and keep them.
type End struct {
	Soft  bool
	Cause Cause
	Code  string // with CausePolicy: the policy's reason; empty: "policy"
	At    int64  // Unix ms
}
