package policy

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"
)

// However many answers there are, and however long, they take bounded memory.
func TestWebhookCacheIsBounded(t *testing.T) {
	t.Parallel()
	c := newHookCache(time.Minute)
	now := time.Now()
	for i := range 2000 {
		var key cacheKey
		binary.LittleEndian.PutUint64(key[:], uint64(i))
		c.put(key, answer{decision: Decision{Message: strings.Repeat("x", 30<<10)}, settled: true}, now)
		if _, ok := c.get(key, now); !ok {
			t.Fatal("an answer is not kept")
		}
	}
	if n := c.answers.Bytes(); n > hookCacheBytes {
		t.Errorf("%d bytes", n)
	}
}
