package record

import (
	"testing"
	"time"
)

func TestExpiry(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		t    time.Time
		want Expiry
	}{
		{time.Time{}, 0},
		{time.Unix(1, 0), 1},
		{time.Unix(1, 1), 2},
		{time.Unix(0, 0), 1},
		{time.Unix(-5, 0), 1},
		{time.Unix(1<<32-1, 0), 1<<32 - 1},
		{time.Unix(1<<32-1, 1), 0},
		{time.Unix(1<<40, 0), 0},
	} {
		t.Run(c.t.String(), func(t *testing.T) {
			if got := ExpiryOf(c.t); got != c.want {
				t.Errorf("expiryOf(%v) = %d, want %d", c.t, got, c.want)
			}
		})
	}
	e := ExpiryOf(time.Unix(100, 500))
	if e.Passed(time.Unix(100, 999)) || !e.Passed(time.Unix(101, 0)) || Expiry(0).Passed(time.Unix(1<<33, 0)) {
		t.Error("a record expires at the wrong time")
	}
}
