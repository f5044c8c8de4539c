package wire_test

import (
	"testing"

	"github.com/discharger/discharger/discharger/revocation"
)

// checkRevocation expects the data of a revocation to be encoded as the same text.
func checkRevocation(t *testing.T, data string) {
	t.Helper()
	var r revocation.Event
	if err := r.UnmarshalJSON([]byte(data)); err != nil {
		t.Error(err)
	}
	if again, err := r.MarshalJSON(); err != nil || string(again) != data {
		t.Errorf("%s is encoded again as %s, %v", data, again, err)
	}
}
