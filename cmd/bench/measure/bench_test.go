package measure

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// Quantiles are within 2 % of those of the values themselves.
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

func TestSpread(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   []float64
		want string
	}{
		{[]float64{3}, "3 [3 3]"},
		{[]float64{3, 1, 2}, "2 [1 3]"},
		{[]float64{4, 1, 2, 3}, "2.5 [1 4]"},
		{[]float64{1234.5, 0.01234}, "617 [0.0123 1234]"},
	} {
		if got := spreadOf(c.in).String(); got != c.want {
			t.Errorf("%v: %s, want %s", c.in, got, c.want)
		}
	}
}

func TestHolds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		n    Number
		want bool
	}{
		{Number{AtMost: 2, Found: Spread{Median: 2}}, true},
		{Number{AtMost: 2, Found: Spread{Median: 2.1}}, false},
		{Number{AtLeast: 2, Found: Spread{Median: 2}}, true},
		{Number{AtLeast: 2, Found: Spread{Median: 1.9}}, false},
		{Number{AtMost: 2}, false}, // nothing was found
	} {
		if got := c.n.Holds(); got != c.want {
			t.Errorf("%+v: %v", c.n, got)
		}
	}
}

// TestConn reads what servers answer, and refuses what it cannot.
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
		near, far := net.Pipe()
		go func() {
			far.Read(make([]byte, 100))
			io.WriteString(far, c.answer)
			far.Close()
		}()
		cn := newConn(near)
		status, body, err := cn.do([]byte("GET"))
		if c.err == "" && (err != nil || status != 200 || string(body) != c.body) {
			t.Errorf("%q: %d %q %v", c.answer, status, body, err)
		}
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q: error %v, want %q", c.answer, err, c.err)
		}
		cn.close()
	}
}

// TestUsage knows of what a short round takes: less than the hundredth of a
// second that /proc counts in.
func TestUsage(t *testing.T) {
	t.Parallel()
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Process = &os.Process{Pid: os.Getpid()}
	before, err := p.usage()
	if err != nil {
		t.Fatal(err)
	}
	for after := before; after.cpu == before.cpu; {
		if after, err = p.usage(); err != nil {
			t.Fatal(err)
		}
		if used := after.cpu - before.cpu; used < 0 || used%(10*time.Millisecond) == 0 && used > 0 {
			t.Errorf("%v of processor time is told in hundredths of a second", used)
		}
	}
}

func TestUsedMemory(t *testing.T) {
	t.Parallel()
	if n, err := usedMemory("# Memory\r\nused_memory:1234\r\nused_memory_human:1K\r\n"); n != 1234 || err != nil {
		t.Error(n, err)
	}
	if _, err := usedMemory("# Memory\r\n"); err == nil {
		t.Error("no error")
	}
}

// TestSVG makes one that is XML, with a plot for each dimension that there is.
func TestSVG(t *testing.T) {
	t.Parallel()
	g := &Growth{Machine: Machine{CPU: "a < b & c"}, Store: Bolt}
	for _, d := range []Dimension{Sessions, Rules} {
		for _, at := range []int{1, 10, 100} {
			g.Points = append(g.Points, Point{Dimension: d, At: at, Open: Sample{CPU: 50}, Rotate: Sample{CPU: 80 + float64(at)}})
		}
	}
	g.Points = append(g.Points, Point{Dimension: PerUser, At: 7}) // nothing to draw a line with
	var b bytes.Buffer
	if err := g.WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	groups := 0
	for d := xml.NewDecoder(&b); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "g" {
			groups++
		}
	}
	if groups != 3 || strings.Contains(b.String(), "NaN") {
		t.Errorf("%d plots\n%s", groups, b.String())
	}
}

// TestJudge finds what grows.
func TestJudge(t *testing.T) {
	t.Parallel()
	steady := window{memory: 50 << 20, size: 1 << 20, p50: 1000, p99: 5000}
	for _, c := range []struct {
		name  string
		later func(*window)
		err   string
	}{
		{"steady", func(*window) {}, ""},
		{"memory", func(w *window) { w.memory *= 3 }, "memory grew"},
		{"store", func(w *window) { w.size *= 20 }, "store grew"},
		{"latency", func(w *window) { w.p50 *= 200 }, "latency grew"},
		{"a slow window", func(w *window) { w.p50 *= 200 }, ""},
	} {
		later := steady
		c.later(&later)
		s := &soaker{out: &Soaking{Sent: make(Kinds), windows: []window{steady, steady, later, later}}}
		if c.name == "a slow window" {
			s.out.windows[3] = steady
		}
		if err := s.judge(); (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	s := &soaker{out: &Soaking{windows: []window{steady}}}
	if err := s.judge(); err == nil {
		t.Error("one window is enough")
	}
}

// TestDayRefused takes a session that is refused for what it is: an end that
// nobody asked for.
func TestDayRefused(t *testing.T) {
	t.Parallel()
	refused := []byte(`{"Code":"permission denied"}`)
	d := &day{sessions: []*login{{tries: 5}}, kind: kindDischarge}
	if err := d.answered(401, refused); err == nil {
		t.Error("a session ended, and nobody noticed")
	}
	d.kind = kindReuse
	if err := d.answered(200, []byte(`{}`)); err == nil {
		t.Error("a token was used again, and nobody noticed")
	}
}
