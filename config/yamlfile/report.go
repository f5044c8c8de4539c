package yamlfile

import (
	"fmt"
	"slices"
)

// whole reports a problem of the file as a whole.
func (d *Document) whole(format string, args ...any) {
	d.Report(&Problem{Message: fmt.Sprintf(format, args...)})
}

// Errorf reports a problem at a node.
func (d *Document) Errorf(n *Node, format string, args ...any) {
	d.reportAt(n, &Problem{Message: fmt.Sprintf(format, args...)})
}

// Warnf reports at a node a problem that does not keep the file from being used.
func (d *Document) Warnf(n *Node, format string, args ...any) {
	d.reportAt(n, &Problem{Message: fmt.Sprintf(format, args...), Warning: true})
}

// ErrorIn reports a problem some characters into a string.
func (d *Document) ErrorIn(n *Node, offset int, format string, args ...any) {
	d.reportIn(n, offset, &Problem{Message: fmt.Sprintf(format, args...)})
}

// WarnIn is [Document.ErrorIn] for a warning.
func (d *Document) WarnIn(n *Node, offset int, format string, args ...any) {
	d.reportIn(n, offset, &Problem{Message: fmt.Sprintf(format, args...), Warning: true})
}

// Invalid reports a problem of the value that path names. A nil node stands for
// the file as a whole.
func (d *Document) Invalid(n *Node, path, format string, args ...any) {
	d.reportAt(n, &Problem{Path: path, Message: fmt.Sprintf(format, args...)})
}

func (d *Document) reportIn(n *Node, offset int, p *Problem) {
	if !d.full() {
		p.Line, p.Column = d.Position(n, offset)
	}
	d.Report(p)
}

// full reports whether there are MaxProblems. Further ones must take no time: a file
// can have many, all in one long line.
func (d *Document) full() bool { return len(d.problems) >= d.options.MaxProblems }

// reportAt reports a problem at a node. All of a string or number that ends on its
// first line is underlined, and otherwise one word.
func (d *Document) reportAt(n *Node, p *Problem) {
	if n != nil && !d.full() {
		p.Line, p.Column = n.Line, n.Column
		if n.Line > 0 && n.Line <= len(d.lines) {
			p.Width = scalarWidth(n, d.lines[n.Line-1]) // 0: Report takes one word
		}
	}
	d.Report(p)
}

// Report adds a problem. Its File and Text are set here, and its Width and Err
// unless it has them.
func (d *Document) Report(p *Problem) {
	if d.full() {
		d.dropped = d.dropped || !p.Warning
		return
	}
	p.File = d.name
	p.Message = printable(p.Message)
	if p.Err == nil {
		p.Err = d.Kind
	}
	if p.Column > 0 && p.Width == 0 && p.Line <= len(d.lines) {
		p.Width = tokenWidth(d.lines[p.Line-1], p.Column)
	}
	d.problems = append(d.problems, p)
}

// Len returns the number of problems so far.
func (d *Document) Len() int { return len(d.problems) }

// Failed reports whether a problem so far is more than a warning.
func (d *Document) Failed() bool { return d.dropped || d.problems.Err() != nil }

// Problems returns the problems in the order of the file. The last one stands
// for those beyond MaxProblems.
func (d *Document) Problems() Problems {
	all := slices.Clone(d.problems)
	for _, p := range all {
		if p.Line > 0 && p.Line <= len(d.shown) {
			p.Text = d.shown[p.Line-1]
		}
	}
	all.Sort()
	if d.dropped {
		all = append(all, &Problem{File: d.name, Err: d.options.Kind,
			Message: fmt.Sprintf("more than %d problems; the rest is not shown", d.options.MaxProblems)})
	}
	return all
}
