package gateway

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
	smallBody = 16 << 10 // bytes
	bodiesMax = 16 << 20 // bytes of all bodies, beyond the first smallBody of each
	maxParsed = 4        // large bodies that are parsed at a time: that takes ten times as much memory
)

var errNoRoom = errors.New("too many large bodies at a time")

// bodyRoom counts the memory of bodies.
type bodyRoom struct {
	turns chan struct{} // holds a value for each large body that is parsed

	mu   sync.Mutex
	max  int
	used int
}

func newBodyRoom(size int) *bodyRoom {
	return &bodyRoom{max: size, turns: make(chan struct{}, maxParsed)}
}

// parse calls a function that parses a body, in turn if it is a large one.
func (b *bodyRoom) parse(data []byte, f func([]byte)) {
	if len(data) > smallBody {
		b.turns <- struct{}{}
		defer func() { <-b.turns }()
	}
	f(data)
}

// parseBody does what parseObject does, in turn.
func (g *Gateway) parseBody(data []byte) (o object, err error) {
	g.bodies.parse(data, func(data []byte) { o, err = parseObject(data) })
	return o, err
}

// heldBody is the part of the room that one request and its answer have.
type heldBody struct {
	room *bodyRoom // nil: it has none
	size int
}

// read reads a body of up to maxBody bytes. The room for it is noted in h.
func (b *bodyRoom) read(r io.Reader, h *heldBody) ([]byte, error) {
	data := make([]byte, 0, 512)
	for {
		if len(data) == cap(data) {
			next := min(2*cap(data), maxBody+1)
			if !b.take(h, next-max(cap(data), smallBody)) {
				return nil, errNoRoom
			}
			data = append(make([]byte, 0, next), data...)
		}
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case len(data) > maxBody:
			return nil, errTooLarge
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			return nil, err
		}
	}
}

// take takes room for more of a body. It reports false if there is none.
func (b *bodyRoom) take(h *heldBody, n int) bool {
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

// release gives the room of a body back.
func (h *heldBody) release() {
	if h.room == nil {
		return
	}
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	h.room.used -= h.size
	h.size = 0
}
