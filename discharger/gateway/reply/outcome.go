package reply

// Outcome is the result of a request, for metrics and the log.
type Outcome uint8

// The outcomes. Outcomes is their number.
const (
	outcomeForwarded   Outcome = iota // answered by the homeserver
	OutcomeOwn                        // answered by the gateway
	outcomeRefused                    // the token is invalid
	outcomeForbidden                  // the token does not allow the request
	outcomeDenied                     // the path is not passed on
	OutcomeMalformed                  // the request is malformed
	OutcomeUnavailable                // not decided
	OutcomeUpstream                   // the homeserver did not answer
	OutcomeGone                       // the client has disconnected
	OutcomeSlow                       // the client sent too slowly
	OutcomeLimited                    // too many concurrent requests
	Outcomes
)

var outcomeNames = [Outcomes]string{
	"forwarded", "answered", "refused", "forbidden", "denied", "malformed", "unavailable", "upstream_error", "client_gone", "client_slow", "limited",
}

// String returns the label of the outcome in metrics.
func (o Outcome) String() string { return outcomeNames[o] }
