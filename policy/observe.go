package policy

import "time"

// An Observer is told what happens beside decisions, for logs and metrics.
// Its methods are called concurrently, on the way of requests, and return at
// once. [NoObserver] is one to embed.
type Observer interface {
	// Reloaded reports an attempt to load the files of a [Reloader] anew. On
	// an error the set with the given hash stays in force.
	Reloaded(hash string, err error)

	// Shadowed reports what a candidate would have decided.
	Shadowed(c Comparison)

	// ShadowDropped reports a request that the candidate was not asked about
	// because it is too slow.
	ShadowDropped()

	// AuditFailed reports that a record did not reach the audit log.
	AuditFailed(err error)

	// WebhookAsked reports a question to a webhook that went out, how long
	// the answer took, and the error if there was none.
	WebhookAsked(name string, took time.Duration, err error)

	// WebhookRefused reports a question that did not go out: the breaker is
	// open, or too many are waiting.
	WebhookRefused(name string, err error)
}

// NoObserver is an [Observer] that does nothing.
type NoObserver struct{}

func (NoObserver) Reloaded(string, error)                    {}
func (NoObserver) Shadowed(Comparison)                       {}
func (NoObserver) ShadowDropped()                            {}
func (NoObserver) AuditFailed(error)                         {}
func (NoObserver) WebhookAsked(string, time.Duration, error) {}
func (NoObserver) WebhookRefused(string, error)              {}

func observer(o Observer) Observer {
	if o == nil {
		return NoObserver{}
	}
	return o
}
