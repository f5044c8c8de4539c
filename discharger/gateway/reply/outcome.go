package reply

// Outcome is what became of a request, for metrics and the log.
type Outcome uint8

const (
	outcomeForwarded   Outcome = iota // the homeserver answered
	OutcomeOwn                        // the gateway answered, as it was asked to
	outcomeRefused                    // the token is no good
	outcomeForbidden                  // the token is not for this
	outcomeDenied                     // a path that is not passed on
	OutcomeMalformed                  // the request cannot be read
	OutcomeUnavailable                // not decided
	OutcomeUpstream                   // the homeserver did not answer
	OutcomeGone                       // the client did not wait
	OutcomeSlow                       // the client did not send
	OutcomeLimited                    // too many at a time
	Outcomes
)

var outcomeNames = [Outcomes]string{
	"forwarded", "answered", "refused", "forbidden", "denied", "malformed", "unavailable", "upstream_error", "client_gone", "client_slow", "limited",
}

// String names the outcome as it is in metrics.
func (o Outcome) String() string { return outcomeNames[o] }
