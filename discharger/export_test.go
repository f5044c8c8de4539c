package discharger

// Mint lets benchmarks mint without a service.
var Mint = mint

// MaxAnnouncements is the size of half of what is remembered.
const MaxAnnouncements = maxAnnouncements

// Announcements counts what is left of so many.
func Announcements(n int) int {
	var m announcements
	for i := range n {
		m.add([]revoked{{before: int64(i)}})
	}
	return len(m.young) + len(m.old)
}
