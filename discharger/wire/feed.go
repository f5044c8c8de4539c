package wire

// The names of server-sent events on PathRevocations. Readers ignore names that
// they do not know. Lines that begin with a colon come at the heartbeat's rate
// while there is nothing else, so that silence means that the line is dead.
const (
	EventRevocation = "revocation" // data: a revocation.Event; id: where to resume
	EventGap        = "gap"        // events may be missing; all that are retained follow
	EventCurrent    = "current"    // all retained events were sent; data: a FeedState
)

// FeedState is the data of an EventCurrent.
type FeedState struct {
	// Heartbeat is how often something comes, at least; in milliseconds.
	Heartbeat int64 `json:"heartbeat"`
}
