package measure

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
)

// The size of a plot, in pixels.
const (
	plotWidth, plotHeight = 360, 220 // of the drawing area
	plotLeft, plotTop     = 60, 40
	cellWidth             = plotLeft + plotWidth + 30
	cellHeight            = plotTop + plotHeight + 60
)

// WriteSVG draws processor time against every dimension, two plots to a row. The
// scale begins at zero.
func (g *Growth) WriteSVG(w io.Writer) error {
	var b strings.Builder
	n := 0
	for _, d := range Dimensions() {
		if points := g.along(d); len(points) > 0 {
			drawPlot(&b, d, points, float64(n%2*cellWidth), float64(n/2*cellHeight))
			n++
		}
	}
	rows := (n + 1) / 2
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">
<rect width="100%%" height="100%%" fill="#fff"/>
<text x="10" y="14">%s</text>
%s</svg>
`, min(n, 2)*cellWidth, rows*cellHeight+20, html.EscapeString(fmt.Sprintf("%s; store %s", g.Machine, g.Store)), b.String())
	return err
}

func drawPlot(b *strings.Builder, d Dimension, points []Point, x, y float64) {
	most := 0.0
	for _, p := range points {
		most = max(most, p.Open.CPU, p.Rotate.CPU)
	}
	most = niceTop(most)
	first, last := math.Log10(float64(points[0].At)), math.Log10(float64(points[len(points)-1].At))
	place := func(at int, v float64) (float64, float64) {
		across := 0.5
		if last > first {
			across = (math.Log10(float64(at)) - first) / (last - first)
		}
		return plotLeft + across*plotWidth, plotTop + plotHeight*(1-v/most)
	}
	fmt.Fprintf(b, "<g transform=\"translate(%g %g)\">\n<text x=\"%d\" y=\"%d\">µs of processor time for a request, by %s</text>\n",
		x, y+20, plotLeft, plotTop-12, d)
	for i := range 5 {
		v := most * float64(i) / 4
		_, at := place(points[0].At, v)
		fmt.Fprintf(b, "<path d=\"M%d %.1fh%d\" stroke=\"#ddd\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3g</text>\n",
			plotLeft, at, plotWidth, plotLeft-6, at+4, v)
	}
	for _, p := range points {
		at, _ := place(p.At, 0)
		fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d</text>\n", at, plotTop+plotHeight+16, p.At)
	}
	for i, line := range []struct {
		name, color string
		of          func(Point) float64
	}{{"open", "#06c", func(p Point) float64 { return p.Open.CPU }}, {"rotate", "#c40", func(p Point) float64 { return p.Rotate.CPU }}} {
		var path strings.Builder
		for j, p := range points {
			px, py := place(p.At, line.of(p))
			step := 'L'
			if j == 0 {
				step = 'M'
			}
			fmt.Fprintf(&path, "%c%.1f %.1f", step, px, py)
			fmt.Fprintf(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", px, py, line.color)
		}
		fmt.Fprintf(b, "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/><text x=\"%d\" y=\"%d\" fill=\"%s\">%s</text>\n",
			path.String(), line.color, plotLeft+i*60, plotTop+plotHeight+36, line.color, line.name)
	}
	b.WriteString("</g>\n")
}

// niceTop returns the end of a scale: 1, 2, 4 or 8 times a power of ten, at least
// most.
func niceTop(most float64) float64 {
	if most <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(most)))
	for _, n := range []float64{1, 2, 4, 8} {
		if n*unit >= most {
			return n * unit
		}
	}
	return 10 * unit
}
