package cache

import (
	"encoding/binary"
	"time"
)

// ByID returns the configuration of a cache whose keys are random identifiers, such as
// those of sessions. A nil size is for values without memory of their own.
func ByID[K ~[16]byte, V any](idle time.Duration, size func(V) int) Config[K, V] {
	cfg := Config[K, V]{Idle: idle, Hash: func(id K) uint64 { return binary.LittleEndian.Uint64(id[:]) }}
	if size != nil {
		cfg.Size = func(_ K, v V) int { return size(v) }
	}
	return cfg
}
