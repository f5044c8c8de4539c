package jsonbody

import (
	"errors"
	"io"
	"sync"
)

// Sizes of bodies in memory.
const (
	SmallSize   = 16 << 10 // bytes of a body that take no room
	DefaultRoom = 16 << 20 // bytes of all bodies beyond that
	maxParsed   = 4        // large bodies parsed at a time, each in up to ten times its size
)

// ErrNoRoom is returned for a body beyond the room.
var ErrNoRoom = errors.New("too many large bodies at a time")

// Room bounds the memory of large bodies. A body that the gateway reads is in memory
// until its request is answered, and its client may send slowly. Answers to tokens
// that are narrowed to a room use it too. Bodies of logins and refreshes are small.
type Room struct {
	turns chan struct{} // holds a value for each large body being parsed

	mu   sync.Mutex
	max  int
	used int
}

// NewRoom returns a room of size bytes.
func NewRoom(size int) *Room {
	return &Room{max: size, turns: make(chan struct{}, maxParsed)}
}

// InTurn calls a function that parses a body. For a large body, it waits until fewer
// than four are being parsed.
func (b *Room) InTurn(data []byte, f func([]byte)) {
	if len(data) > SmallSize {
		b.turns <- struct{}{}
		defer func() { <-b.turns }()
	}
	f(data)
}

// Share is the room that the bodies of one exchange take.
type Share struct {
	room *Room // nil: none
	size int
}

// Read reads a body of up to [MaxSize] bytes, and adds the room for it to h.
func (b *Room) Read(r io.Reader, h *Share) ([]byte, error) {
	data := make([]byte, 0, 512)
	for {
		if len(data) == cap(data) {
			next := min(2*cap(data), MaxSize+1)
			if !b.take(h, next-max(cap(data), SmallSize)) {
				return nil, ErrNoRoom
			}
			data = append(make([]byte, 0, next), data...)
		}
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case len(data) > MaxSize:
			return nil, ErrTooLarge
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			return nil, err
		}
	}
}

// take adds n bytes to a share, if there is room.
func (b *Room) take(h *Share, n int) bool {
	if n <= 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+n > b.max {
		return false
	}
	b.used += n
	h.room, h.size = b, h.size+n
	return true
}

// InUse returns the taken bytes.
func (b *Room) InUse() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Release gives the room back.
func (h *Share) Release() {
	if h.room == nil {
		return
	}
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	h.room.used -= h.size
	h.size = 0
}
