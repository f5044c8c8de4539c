package jsonbody

import (
	"errors"
	"io"
	"sync"
)

// A body that the gateway reads is in memory until its request has been answered,
// and its client may take half a minute to send the last byte. So large ones share
// a bounded room. Bodies of logins and refreshes are small, and need none of it. The
// answers to tokens narrowed to a room share it: their clients may read slowly.
const (
	SmallSize   = 16 << 10 // bytes
	DefaultRoom = 16 << 20 // bytes of all bodies, beyond the first smallBody of each
	maxParsed   = 4        // large bodies that are parsed at a time: that takes ten times as much memory
)

var ErrNoRoom = errors.New("too many large bodies at a time")

// Room counts the memory of bodies.
type Room struct {
	turns chan struct{} // holds a value for each large body that is parsed

	mu   sync.Mutex
	max  int
	used int
}

func NewRoom(size int) *Room {
	return &Room{max: size, turns: make(chan struct{}, maxParsed)}
}

// InTurn calls a function that parses a body, in turn if it is a large one.
func (b *Room) InTurn(data []byte, f func([]byte)) {
	if len(data) > SmallSize {
		b.turns <- struct{}{}
		defer func() { <-b.turns }()
	}
	f(data)
}

// Share is the part of the room that one request and its answer have.
type Share struct {
	room *Room // nil: it has none
	size int
}

// Read reads a body of up to maxBody bytes. The room for it is noted in h.
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

// take takes room for more of a body. It reports false if there is none.
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

// InUse returns the number of bytes that bodies take.
func (b *Room) InUse() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Release gives the room of a body back.
func (h *Share) Release() {
	if h.room == nil {
		return
	}
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	h.room.used -= h.size
	h.size = 0
}
