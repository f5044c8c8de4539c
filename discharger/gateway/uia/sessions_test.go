package uia

import (
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// Sessions are bounded in bytes and in time, and so is each of them.
func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Now()
	memory := NewSessions(64 << 10)
	for i := range 200 {
		memory.Put(Key{byte(i)}, Params{Refresh: Yes, Device: strings.Repeat("x", caveat.MaxDevice)}, now)
	}
	sum := 0
	for el := memory.Order.Front(); el != nil; el = el.Next() {
		sum += entryIn(el).params.size()
	}
	if sum == 0 || sum > memory.room || sum != memory.used || memory.Order.Len() != len(memory.byKey) {
		t.Errorf("%d bytes in %d and %d entries are kept, %d are counted", sum, memory.Order.Len(), len(memory.byKey), memory.used)
	}
	now = now.Add(Life)
	memory.Put(Key{0, 1}, Params{}, now)
	if n := memory.Order.Len(); n != 1 {
		t.Errorf("%d entries are kept, all but one have expired", n)
	}
	if memory.Put(Key{1}, Params{Devices: make([]string, 1000)}, now); memory.Order.Len() != 1 {
		t.Error("an entry of any size is kept")
	}
}
