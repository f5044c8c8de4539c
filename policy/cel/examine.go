package cel

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"

	"github.com/discharger/discharger/config/yamlfile"
)

// examine reports mistakes that the type checker accepts: unknown names in
// literals, comparisons that are never true, reads that fail for some sessions. It
// returns whether the expression is valid.
func (c *checker) examine() bool {
	root := c.ast.NativeRep().Expr()
	tested := testedPaths(root)
	ast.PostOrderVisit(root, ast.NewExprVisitor(func(x ast.Expr) {
		switch x.Kind() {
		case ast.StructKind:
			c.failAt(x, "objects cannot be constructed")
		case ast.ComprehensionKind:
			c.loops = true
		case ast.SelectKind:
			c.examineSelect(x, tested)
		case ast.CallKind:
			c.examineCall(x, tested)
		}
	}))
	return !c.failed
}

// failAt reports a mistake in a part of the expression.
func (c *checker) failAt(x ast.Expr, format string, args ...any) {
	c.failed = true
	c.fail(c.offsetOf(x), format, args...)
}

// offsetOf returns the offset of a part of an expression in its text.
func (c *checker) offsetOf(x ast.Expr) int {
	return afterDot(c.Text, offsetOf(c.Text, c.ast.NativeRep().SourceInfo().GetStartLocation(x.ID())))
}

// afterDot returns the offset of the field name of a selection, whose location in
// CEL is the dot.
func afterDot(text string, offset int) int {
	if runes := []rune(text); offset < len(runes) && runes[offset] == '.' {
		return offset + 1
	}
	return offset
}

// testedPaths returns the paths in presence tests: a.b of has(a.b), and m.k of "k" in m.
func testedPaths(root ast.Expr) map[string]bool {
	tested := map[string]bool{}
	ast.PostOrderVisit(root, ast.NewExprVisitor(func(x ast.Expr) {
		switch {
		case x.Kind() == ast.SelectKind && x.AsSelect().IsTestOnly():
			tested[pathOf(x)] = true
		case x.Kind() == ast.CallKind && x.AsCall().FunctionName() == operators.In:
			key, isText := textOf(x.AsCall().Args()[0])
			if path := pathOf(x.AsCall().Args()[1]); isText && path != "" {
				tested[path+"."+key] = true
			}
		}
	}))
	return tested
}

// textOf returns the value of a string literal.
func textOf(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().Value().(string)
	return s, ok
}

const labelsPath = "session.labels"

// examineSelect warns of a read that may fail.
func (c *checker) examineSelect(x ast.Expr, tested map[string]bool) {
	path := pathOf(x)
	if x.AsSelect().IsTestOnly() || tested[path] {
		return
	}
	if label, ok := strings.CutPrefix(path, labelsPath+"."); ok {
		c.warnLabel(x, label)
	}
	if f := c.fieldAt(x); f != nil && f.Required && path != SessionsPath {
		c.warn(c.offsetOf(x), "%s is unset for some sessions and fails then; test has(%s) first", path, path)
	}
}

// SessionsPath is the path of the field that the service counts at the first read.
const SessionsPath = "user.sessions"

func (c *checker) warnLabel(x ast.Expr, label string) {
	c.warn(c.offsetOf(x),
		"fails for sessions without the label %.60q; write session.labels[?%s].orValue(\"\")", label, strconv.Quote(label))
}

// examineCall checks the literals among the arguments of a call or an operator.
func (c *checker) examineCall(x ast.Expr, tested map[string]bool) {
	call := x.AsCall()
	args := call.Args()
	switch name := call.FunctionName(); name {
	case operators.Index:
		label, isText := textOf(args[1])
		if pathOf(args[0]) == labelsPath && isText && !tested[labelsPath+"."+label] {
			c.warnLabel(x, label)
		}
	case operators.Equals, operators.NotEquals:
		c.examineValue(args[0], args[1])
		c.examineValue(args[1], args[0])
	case operators.In:
		c.examineIn(args[0], args[1])
	case overloads.Matches:
		pattern := args[len(args)-1]
		if _, isText := textOf(pattern); !isText {
			c.failAt(pattern, "want a regular expression in quotes, got an expression")
		}
	case "during":
		c.examineLiteral(args[0], "a time of the week", c.clock.addWindow)
		c.examineLiteral(args[1], "a time zone", c.clock.addZone)
	default:
		isZoned := slices.ContainsFunc(zonedFunctions(), func(z zoned) bool { return z.function == name })
		if isZoned && call.IsMemberFunction() && len(args) == 1 {
			c.examineLiteral(args[0], "a time zone", c.clock.addZone)
		}
	}
}

// examineLiteral adds an argument that must be a literal to the clock.
func (c *checker) examineLiteral(x ast.Expr, name string, add func(string) error) {
	text, ok := textOf(x)
	if !ok {
		c.failAt(x, "want %s in quotes, got an expression", name)
		return
	}
	if err := add(text); err != nil {
		c.failAt(x, "%s", err)
	}
}

// examineIn checks the container of a lookup.
func (c *checker) examineIn(x, container ast.Expr) {
	if container.Kind() == ast.ListKind {
		for _, element := range container.AsList().Elements() {
			c.examineValue(x, element)
		}
	}
	if f := c.fieldAt(x); f != nil && f.addr && strings.HasPrefix(pathOf(container), listPrefix) {
		c.failAt(container, "%s contains no addresses; lists of addresses and networks are under networks",
			pathOf(container))
	}
}

// fieldAt returns the field that a part of an expression reads, or nil.
func (c *checker) fieldAt(x ast.Expr) *Field {
	path := pathOf(x)
	i := slices.IndexFunc(c.table, func(f Field) bool { return f.Path() == path })
	if i < 0 {
		return nil
	}
	return &c.table[i]
}

// examineValue reports a comparison of a field with a value that it never has.
func (c *checker) examineValue(x, value ast.Expr) {
	text, isText := textOf(value)
	f := c.fieldAt(x)
	switch {
	case !isText || f == nil:
	case f.Enum != nil && !slices.Contains(f.Enum, text):
		c.failAt(value, "%s is never %.60q%s", f.Path(), text, yamlfile.SuggestOrList(text, f.Enum))
	case f.addr && text != "":
		a, err := netip.ParseAddr(text)
		if err != nil {
			c.failAt(value, "%s is an address and never %.60q; for a network write %s in cidr(\"10.0.0.0/8\")", f.Path(), text, f.Path())
		} else if canonical := a.Unmap().String(); canonical != text {
			c.failAt(value, "%s is never written %q; write %q", f.Path(), text, canonical)
		}
	}
}
