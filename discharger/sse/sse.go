// Package sse reads and writes server-sent events: the text/event-stream format
// of the HTML Standard, section 9.2.
//
// A stream is a sequence of UTF-8 lines. An event is its fields, one a line, and
// an empty line; a line that starts with a colon is a comment:
//
//	event: revocation
//	id: 17
//	data: {"v":1,"session":"…"}
//
//	:
//
// The package promises bounded memory: neither a line nor the data of an event
// exceeds the limit of its [Reader]. It never reconnects, interprets data, or
// applies timeouts; those belong to the caller. Of the standard it leaves out the
// field "retry", a byte order mark and a bare CR as the end of a line.
package sse

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// ContentType is the media type of a stream.
const ContentType = "text/event-stream"

// ErrTooLong is returned for a line or an event above the limit of the Reader.
var ErrTooLong = errors.New("event is too long")

// Append appends an event to b. An empty id leaves out that field. The name and
// the id must not contain a line break; data is split at LF.
func Append(b []byte, name, id string, data []byte) []byte {
	b = append(append(b, "event: "...), name...)
	if id != "" {
		b = append(append(b, "\nid: "...), id...)
	}
	for more := true; more; {
		var line []byte
		line, data, more = bytes.Cut(data, []byte{'\n'})
		b = append(append(b, "\ndata: "...), line...)
	}
	return append(b, "\n\n"...)
}

// AppendComment appends an empty comment to b: a sign that the connection works.
func AppendComment(b []byte) []byte { return append(b, ":\n\n"...) }

// Event is an event or a comment of a stream.
type Event struct {
	Name    string // field event
	ID      string // field id of this event, or else of the latest event with one
	Data    string // fields data, joined with LF
	Comment bool   // a comment; the other members are empty
}

// Reader reads a stream. It must not be used concurrently.
type Reader struct {
	in    *bufio.Reader
	limit int
	event Event  // so far, without its data
	data  []byte // each field of it with an LF; nil: the event has none
}

// NewReader returns a Reader of r. limit bounds a line and the data of an event,
// in bytes.
func NewReader(r io.Reader, limit int) *Reader {
	return &Reader{in: bufio.NewReaderSize(r, limit), limit: limit}
}

// Next blocks until an event with data or a comment is complete, and returns it.
// The end of the stream is io.ErrUnexpectedEOF, since a feed has no end; a part
// of an event before it is dropped.
func (r *Reader) Next() (Event, error) {
	for {
		line, err := r.in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return Event{}, fmt.Errorf("%w: line above %d bytes", ErrTooLong, r.limit)
		case errors.Is(err, io.EOF):
			return Event{}, io.ErrUnexpectedEOF
		case err != nil:
			return Event{}, err
		}
		line = bytes.TrimSuffix(line[:len(line)-1], []byte("\r"))
		switch {
		case len(line) == 0:
			event, data := r.event, r.data
			r.event, r.data = Event{ID: event.ID}, nil
			if data != nil {
				event.Data = string(data[:len(data)-1])
				return event, nil
			}
		case line[0] == ':':
			return Event{Comment: true}, nil
		default:
			if err := r.field(line); err != nil {
				return Event{}, err
			}
		}
	}
}

// field adds a field to the event. Unknown fields are ignored.
func (r *Reader) field(line []byte) error {
	name, value, _ := bytes.Cut(line, []byte{':'})
	value = bytes.TrimPrefix(value, []byte{' '})
	switch string(name) {
	case "event":
		r.event.Name = string(value)
	case "id":
		r.event.ID = string(value)
	case "data":
		r.data = append(append(r.data, value...), '\n')
		if len(r.data)-1 > r.limit {
			return fmt.Errorf("%w: data above %d bytes", ErrTooLong, r.limit)
		}
	}
	return nil
}
