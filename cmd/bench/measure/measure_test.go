package measure

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/discharger/discharger/cmd/bench/server"
)

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
		t.Run(c.want, func(t *testing.T) {
			if got := spreadOf(c.in).String(); got != c.want {
				t.Errorf("%v: %s, want %s", c.in, got, c.want)
			}
		})
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
		t.Run(fmt.Sprint(c.n), func(t *testing.T) {
			if got := c.n.Holds(); got != c.want {
				t.Errorf("%+v: %v", c.n, got)
			}
		})
	}
}

func TestSVG(t *testing.T) {
	t.Parallel()
	g := &Growth{Machine: Machine{CPU: "a < b & c"}, Store: server.Bolt}
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
		t.Run(c.name, func(t *testing.T) {
			later := steady
			c.later(&later)
			s := &soaker{out: &Soaking{Sent: make(Kinds), windows: []window{steady, steady, later, later}}}
			if c.name == "a slow window" {
				s.out.windows[3] = steady
			}
			if err := s.judge(); (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", c.name, err)
			}
		})
	}
	s := &soaker{out: &Soaking{windows: []window{steady}}}
	if err := s.judge(); err == nil {
		t.Error("one window is enough")
	}
}
