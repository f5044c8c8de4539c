package uia

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// Sessions are bounded in bytes and in time, and so is each of them.
func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := NewSessions(64 << 10)
		for i := range 200 {
			memory.Put(Key{byte(i)}, Params{Refresh: Yes, Device: strings.Repeat("x", caveat.MaxDevice)}, time.Now())
			if memory.Get(Key{byte(i)}, time.Now()) == nil {
				t.Fatalf("entry %d is not kept", i)
			}
		}
		if n, sum := memory.Len(), memory.kept.Bytes(); sum == 0 || sum > memory.room || sum < n*(256+caveat.MaxDevice) {
			t.Errorf("%d bytes in %d entries are kept", sum, n)
		}
		time.Sleep(Life)
		for i := range 200 {
			if memory.Get(Key{byte(i)}, time.Now()) != nil {
				t.Errorf("entry %d has not expired", i)
			}
		}
		time.Sleep(2 * Life)
		if memory.Put(Key{0, 1}, Params{}, time.Now()); memory.Len() != 1 {
			t.Errorf("%d entries are kept, all but one have expired", memory.Len())
		}
		if memory.Put(Key{1}, Params{Devices: make([]string, 1000)}, time.Now()); memory.Len() != 1 {
			t.Error("an entry of any size is kept")
		}
	})
}
