package workload

import (
	"testing"

	"github.com/discharger/discharger/cmd/bench/load"
)

// TestDayRefused checks that an unexpected end of a session fails the run.
func TestDayRefused(t *testing.T) {
	t.Parallel()
	refused := []byte(`{"Code":"permission denied"}`)
	d := &Day{sessions: []*Login{{tries: 5}}, kind: load.Discharge}
	if err := d.Answered(401, refused); err == nil {
		t.Error("a session that ended was not noticed")
	}
	d.kind = load.Reuse
	if err := d.Answered(200, []byte(`{}`)); err == nil {
		t.Error("a token that was accepted twice was not noticed")
	}
}
