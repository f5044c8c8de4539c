package store

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger"
)

// The stored form of an entry: kind, its homeserver, user, session and
// exception, its generation, and then the three times. Strings carry their
// length first; integers are varints, unsigned the first ones, signed the times.

var errEntry = errors.New("damaged entry")

func appendEntry(b []byte, e *discharger.JournalEntry) []byte {
	b = append(b, byte(e.Kind))
	for _, s := range []string{e.Homeserver, e.User} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	b = append(append(b, e.Session[:]...), e.Except[:]...)
	b = binary.AppendUvarint(b, e.Generation)
	for _, n := range []int64{e.At, e.Keep, e.ExceptKeep} {
		b = binary.AppendVarint(b, n)
	}
	return b
}

// decodeEntry reads a row: when it was added, and the entry.
func decodeEntry(b []byte) (added int64, e discharger.JournalEntry, err error) {
	if len(b) < 9 {
		return 0, e, errEntry
	}
	added, d := int64(binary.BigEndian.Uint64(b)), entryDecoder{b: b[8:]}
	e.Kind = discharger.JournalKind(d.bytes(1)[0])
	e.Homeserver, e.User = d.string(), d.string()
	copy(e.Session[:], d.bytes(len(e.Session)))
	copy(e.Except[:], d.bytes(len(e.Except)))
	e.Generation = d.uvarint()
	e.At, e.Keep, e.ExceptKeep = d.varint(), d.varint(), d.varint()
	if d.bad || len(d.b) > 0 || e.Kind < discharger.JournalSession || e.Kind > discharger.JournalHomeserver {
		return 0, discharger.JournalEntry{}, errEntry
	}
	return added, e, nil
}

// entryDecoder gives zeros after the first error.
type entryDecoder struct {
	b   []byte
	bad bool
}

func (d *entryDecoder) bytes(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return make([]byte, 16)
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *entryDecoder) string() string {
	n := d.uvarint()
	if n > maxName {
		d.bad = true
		return ""
	}
	if s := d.bytes(int(n)); !d.bad {
		return string(s)
	}
	return ""
}

func (d *entryDecoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if d.bad || n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *entryDecoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if d.bad || n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// settled remembers entries that are in the file and in the store. It is
// bounded, and forgets in two steps, well before their time in the file is
// over; what it has forgotten is written again.
type settled struct {
	mu         sync.Mutex
	young, old map[discharger.JournalEntry]struct{}
	turned     time.Time // when young was begun
}

// maxSettled is the size of either half. An entry takes about 200 bytes.
const maxSettled = 1 << 13

// settledKey is what an entry says: of a session, when it was ended makes no
// difference.
func settledKey(e discharger.JournalEntry) discharger.JournalEntry {
	if e.Kind == discharger.JournalSession {
		e.At, e.Generation, e.Keep, e.ExceptKeep = 0, 0, 0, 0
	}
	return e
}

func (s *settled) add(entries []discharger.JournalEntry, now time.Time, life time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now, life)
	for _, e := range entries {
		if len(s.young) >= maxSettled {
			s.turned = time.Time{}
			s.turn(now, life)
		}
		s.young[settledKey(e)] = struct{}{}
	}
}

func (s *settled) turn(now time.Time, life time.Duration) {
	switch age := now.Sub(s.turned); {
	case s.young != nil && age >= 0 && age < life:
		return
	case age >= 0 && age < 2*life || s.turned.IsZero():
		s.old = s.young
	default:
		s.old = nil
	}
	s.young, s.turned = make(map[discharger.JournalEntry]struct{}), now
}

// without returns the entries that are not there.
func (s *settled) without(entries []discharger.JournalEntry, now time.Time, life time.Duration) []discharger.JournalEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now, life)
	var out []discharger.JournalEntry
	for _, e := range entries {
		_, young := s.young[settledKey(e)]
		if _, old := s.old[settledKey(e)]; !young && !old {
			out = append(out, e)
		}
	}
	return out
}

// forget makes room when entries leave the file: all are written again.
func (s *settled) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.young, s.old = nil, nil
}
