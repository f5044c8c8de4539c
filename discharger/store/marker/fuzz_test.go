package marker

import (
	"strings"
	"testing"
)

// FuzzIdentity reads arbitrary bytes of a marker.
func FuzzIdentity(f *testing.F) {
	f.Add("discharger-1:0123456789012345678901")
	f.Add("discharger-2:0123456789012345678901")
	f.Fuzz(func(t *testing.T, id string) {
		if err := CheckID(id); err == nil && (len(id) != idLen || !strings.HasPrefix(id, idPrefix)) {
			t.Fatalf("accepted %q", id)
		}
	})
}
