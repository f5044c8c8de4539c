package cache

import "time"

// Budget is memory that several caches share. All of them are made before it is used
// concurrently.
type Budget struct {
	share int
	now   func() time.Time
	bytes []func() int // of each cache
}

// NewBudget returns a budget whose shares have a size in bytes. The caches take the
// time from now; nil: time.Now.
func NewBudget(share int, now func() time.Time) *Budget { return &Budget{share: share, now: now} }

// NewShared returns a cache with a number of shares of a budget. Config.Bytes is ignored.
func NewShared[K comparable, V any](b *Budget, shares int, cfg Config[K, V]) (*Cache[K, V], error) {
	cfg.Bytes = max(1, b.share*shares)
	c, err := New(cfg.WithClock(b.now))
	if err == nil {
		b.bytes = append(b.bytes, c.Bytes)
	}
	return c, err
}

// Bytes returns the memory of all caches.
func (b *Budget) Bytes() (n int) {
	for _, bytes := range b.bytes {
		n += bytes()
	}
	return n
}
