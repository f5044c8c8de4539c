package sse

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func readAll(stream string, limit int) (events []Event, err error) {
	r := NewReader(strings.NewReader(stream), limit)
	for {
		e, err := r.Next()
		if err != nil {
			return events, err
		}
		events = append(events, e)
	}
}

func TestReader(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100)
	for name, tc := range map[string]struct {
		stream string
		want   []Event
		err    error
	}{
		"empty":              {"", nil, io.ErrUnexpectedEOF},
		"event":              {"event: a\nid: 1\ndata: x\n\n", []Event{{Name: "a", ID: "1", Data: "x"}}, io.ErrUnexpectedEOF},
		"no spaces, CRLF":    {"event:a\r\nid:1\r\ndata:x\r\n\r\n", []Event{{Name: "a", ID: "1", Data: "x"}}, io.ErrUnexpectedEOF},
		"two spaces":         {"data:  x\n\n", []Event{{Data: " x"}}, io.ErrUnexpectedEOF},
		"data of two lines":  {"data: x\ndata: y\n\n", []Event{{Data: "x\ny"}}, io.ErrUnexpectedEOF},
		"empty data":         {"data\n\n", []Event{{}}, io.ErrUnexpectedEOF},
		"no data":            {"event: a\nid: 1\n\ndata: x\n\n", []Event{{ID: "1", Data: "x"}}, io.ErrUnexpectedEOF},
		"id stays":           {"id: 1\ndata: x\n\ndata: y\n\n", []Event{{ID: "1", Data: "x"}, {ID: "1", Data: "y"}}, io.ErrUnexpectedEOF},
		"name does not stay": {"event: a\ndata: x\n\ndata: y\n\n", []Event{{Name: "a", Data: "x"}, {Data: "y"}}, io.ErrUnexpectedEOF},
		"comment":            {":\n: text\n", []Event{{Comment: true}, {Comment: true}}, io.ErrUnexpectedEOF},
		"comment inside":     {"data: x\n:\ndata: y\n\n", []Event{{Comment: true}, {Data: "x\ny"}}, io.ErrUnexpectedEOF},
		"unknown field":      {"retry: 5\nother\ndata: x\n\n", []Event{{Data: "x"}}, io.ErrUnexpectedEOF},
		"cut short":          {"data: x\n", nil, io.ErrUnexpectedEOF},
		"line too long":      {"data: " + long + "\n\n", nil, ErrTooLong},
		"data too long":      {strings.Repeat("data: "+long[:40]+"\n", 2) + "\n", nil, ErrTooLong},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := readAll(tc.stream, 64)
			if !slices.Equal(got, tc.want) || !errors.Is(err, tc.err) {
				t.Errorf("read as %+v, %v", got, err)
			}
		})
	}
}

// Lines of data that add one byte each must not copy all data before them.
func TestEmptyLinesOfDataAreCheap(t *testing.T) {
	const lines = 1 << 12
	stream := strings.Repeat("data\n", lines) + "\n"
	allocated := testing.AllocsPerRun(1, func() {
		if e, err := NewReader(strings.NewReader(stream), lines).Next(); err != nil || len(e.Data) != lines-1 {
			t.Errorf("read %d bytes, %v", len(e.Data), err)
		}
	})
	if allocated > 100 {
		t.Errorf("%v allocations for %d lines", allocated, lines)
	}
}

// FuzzRoundTrip: Next reads the events of Append.
func FuzzRoundTrip(f *testing.F) {
	f.Add("revocation", "p1", "{}")
	f.Add("a", "", "x\ny\n")
	f.Fuzz(func(t *testing.T, name, id, data string) {
		if strings.ContainsAny(name+id, "\r\n") || strings.Contains(data, "\r") || len(name)+len(id)+len(data) > 500 {
			t.Skip()
		}
		stream := AppendComment(Append(nil, name, id, []byte(data)))
		got, err := readAll(string(stream), 1024)
		want := []Event{{Name: name, ID: id, Data: data}, {Comment: true}}
		if !slices.Equal(got, want) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%q is read as %+v, %v", stream, got, err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	b.ReportAllocs()
	var buf []byte
	data := []byte(`{"v":1,"session":"AAAAAAAAAAAAAAAAAAAAAA"}`)
	for b.Loop() {
		buf = Append(buf[:0], "revocation", "17", data)
	}
}
