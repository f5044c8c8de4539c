package webhook

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/policy"
)

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	c := newAnswers(time.Minute)
	now := time.Now()
	for i := range 2000 {
		var key cacheKey
		binary.LittleEndian.PutUint64(key[:], uint64(i))
		c.put(key, Answer{Decision: policy.Decision{Message: strings.Repeat("x", 30<<10)}, Settled: true}, now)
		if _, ok := c.get(key, now); !ok {
			t.Fatal("answer not cached")
		}
	}
	if n := c.kept.Bytes(); n > cacheBytes {
		t.Errorf("cache of %d bytes, want at most %d", n, cacheBytes)
	}
}
