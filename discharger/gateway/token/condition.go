package token

// Names of the conditions that a holder can add to a token in mode held, beside
// time-before and client-ip; see the package comment.
const (
	CondReadOnly = "read-only" // no argument
	CondRoom     = "room"      // a room id
)

// ValidRoom reports whether a text has the form of a room id.
func ValidRoom(id string) bool {
	return len(id) > 1 && len(id) <= 255 && id[0] == '!'
}
