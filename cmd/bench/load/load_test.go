package load

import (
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	var h, half Histogram
	var all []time.Duration
	for i := range 10_000 {
		d := time.Duration(random.ExpFloat64() * float64(time.Millisecond))
		all = append(all, d)
		if i%2 == 0 {
			h.Add(d)
		} else {
			half.Add(d)
		}
	}
	h.Merge(&half)
	slices.Sort(all)
	if h.Count() != uint64(len(all)) {
		t.Errorf("%d values, want %d", h.Count(), len(all))
	}
	for _, q := range []float64{0, .5, .9, .99, .999, 1} {
		want := all[min(int(q*float64(len(all))), len(all)-1)]
		if got := h.Quantile(q); (got - want).Abs() > want/50+time.Nanosecond {
			t.Errorf("quantile %g is %v, want %v", q, got, want)
		}
	}
	for _, d := range []time.Duration{-1, 0, 1, 63, 64, 65, time.Hour, 1<<63 - 1} {
		h.Add(d) // finds a place
	}
	if h.Max() < time.Minute {
		t.Errorf("the longest is %v", h.Max())
	}
}

func TestConn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ answer, body, err string }{
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi", ""},
		{"HTTP/1.1 200 OK\r\nX: y\r\ncontent-length:  2\r\n\r\nhi", "hi", ""},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", "no known length"},
		{"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n", "", "no known length"},
		{"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n", "", "invalid syntax"},
		{"SMTP ready\r\n\r\n", "", "not an answer"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", "", "EOF"},
		{"", "", "EOF"},
	} {
		t.Run(c.answer, func(t *testing.T) {
			near, far := net.Pipe()
			go func() {
				far.Read(make([]byte, 100))
				io.WriteString(far, c.answer)
				far.Close()
			}()
			cn := newConn(near)
			status, body, err := cn.Do([]byte("GET"))
			if c.err == "" && (err != nil || status != 200 || string(body) != c.body) {
				t.Errorf("%q: %d %q %v", c.answer, status, body, err)
			}
			if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%q: error %v, want %q", c.answer, err, c.err)
			}
			cn.Close()
		})
	}
}
