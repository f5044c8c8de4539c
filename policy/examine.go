package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
)

// examine looks for what the type checker cannot see: literals that name
// nothing, comparisons that never hold, reads that fail for some sessions. It
// reports whether the expression can be used.
func (c *compiler) examine(e *expression) bool {
	e.reads = map[string]bool{}
	ok := true
	fail := func(at ast.Expr, format string, args ...any) {
		ok = false
		c.errorIn(e.node, c.offsetIn(e, at), format, args...)
	}
	tested := testedPaths(e.ast.NativeRep().Expr())
	ast.PostOrderVisit(e.ast.NativeRep().Expr(), ast.NewExprVisitor(func(x ast.Expr) {
		switch x.Kind() {
		case ast.StructKind:
			fail(x, "objects cannot be constructed")
		case ast.ComprehensionKind:
			e.loops = true
		case ast.SelectKind:
			c.examineSelect(e, x, tested)
		case ast.CallKind:
			c.examineCall(e, x, tested, fail)
		}
	}))
	return ok
}

// offsetIn is where a part of an expression is in the string it is in.
func (c *compiler) offsetIn(e *expression, x ast.Expr) int {
	return e.offset + afterDot(e.text, offsetOf(e.text, e.ast.NativeRep().SourceInfo().GetStartLocation(x.ID())))
}

// afterDot moves from the dot before a field, which is where CEL says that a
// selection is, to the field's name.
func afterDot(text string, offset int) int {
	if runes := []rune(text); offset < len(runes) && runes[offset] == '.' {
		return offset + 1
	}
	return offset
}

// testedPaths collects what an expression asks the presence of: has(a.b), and
// "k" in m as m.k.
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

// textOf is the value of a string literal.
func textOf(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().Value().(string)
	return s, ok
}

const labelsPath = "session.labels"

// examineSelect notes which field is read and warns of reads that fail.
func (c *compiler) examineSelect(e *expression, x ast.Expr, tested map[string]bool) {
	path := pathOf(x)
	c.reads(e, x.AsSelect().Operand(), x.AsSelect().FieldName())
	if x.AsSelect().IsTestOnly() || tested[path] {
		return
	}
	if label, ok := strings.CutPrefix(path, labelsPath+"."); ok {
		c.warnLabel(e, x, label)
	}
	for i := range c.table {
		if f := &c.table[i]; f.guard && f.path() == path && path != sessionsPath {
			c.warnIn(e.node, c.offsetIn(e, x), "not every session has %s, and without it this fails; ask has(%s) first", path, path)
		}
	}
}

// reads notes that a field of an object is looked at, by whatever name the
// expression has for the object.
func (c *compiler) reads(e *expression, object ast.Expr, name string) {
	if object, ok := strings.CutPrefix(e.ast.NativeRep().GetType(object.ID()).TypeName(), objectTypeName("")); ok {
		e.reads[object+"."+name] = true
	}
}

// sessionsPath is the field that costs the service a count when it is read.
const sessionsPath = "user.sessions"

func (c *compiler) warnLabel(e *expression, x ast.Expr, label string) {
	c.warnIn(e.node, c.offsetIn(e, x),
		"this fails for sessions without the label %q; write session.labels[?%s].orValue(\"\")", shorten(label), strconv.Quote(label))
}

// examineCall checks the literals that a call or an operator is given.
func (c *compiler) examineCall(e *expression, x ast.Expr, tested map[string]bool, fail func(ast.Expr, string, ...any)) {
	call := x.AsCall()
	args := call.Args()
	switch name := call.FunctionName(); name {
	case operators.Index:
		label, isText := textOf(args[1])
		if pathOf(args[0]) == labelsPath && isText && !tested[labelsPath+"."+label] {
			c.warnLabel(e, x, label)
		}
	case operators.OptSelect:
		if name, isText := textOf(args[1]); isText {
			c.reads(e, args[0], name)
		}
	case operators.Equals, operators.NotEquals:
		c.examineValue(args[0], args[1], fail)
		c.examineValue(args[1], args[0], fail)
	case operators.In:
		c.examineIn(args[0], args[1], fail)
	case overloads.Matches:
		pattern := args[len(args)-1]
		if _, isText := textOf(pattern); !isText {
			fail(pattern, "a regular expression is written out in the rule, so that it can be checked")
		}
	case "during":
		c.examineLiteral(args[0], "a time of the week", c.clock.addWindow, fail)
		c.examineLiteral(args[1], "a time zone", c.clock.addZone, fail)
	default:
		if call.IsMemberFunction() && len(args) == 1 && isZoned(name) {
			c.examineLiteral(args[0], "a time zone", c.clock.addZone, fail)
		}
	}
}

func isZoned(function string) bool {
	return slices.ContainsFunc(zonedFunctions(), func(z zoned) bool { return z.function == function })
}

// examineLiteral reads an argument that has to be written out.
func (c *compiler) examineLiteral(x ast.Expr, what string, add func(string) error, fail func(ast.Expr, string, ...any)) {
	text, ok := textOf(x)
	if !ok {
		fail(x, "%s is written out in the rule, so that it can be checked", what)
		return
	}
	if err := add(text); err != nil {
		fail(x, "%s", err)
	}
}

// examineIn checks what a field is looked for in.
func (c *compiler) examineIn(x, container ast.Expr, fail func(ast.Expr, string, ...any)) {
	if container.Kind() == ast.ListKind {
		for _, element := range container.AsList().Elements() {
			c.examineValue(x, element, fail)
		}
	}
	if f := c.fieldAt(x); f != nil && f.addr && strings.HasPrefix(pathOf(container), listPrefix) {
		fail(container, "%s has no addresses in it; lists of addresses and networks are under networks", pathOf(container))
	}
}

func (c *compiler) fieldAt(x ast.Expr) *field {
	path := pathOf(x)
	for i := range c.table {
		if c.table[i].path() == path {
			return &c.table[i]
		}
	}
	return nil
}

// examineValue refuses to compare a field with a value that it never has.
func (c *compiler) examineValue(x, value ast.Expr, fail func(ast.Expr, string, ...any)) {
	text, isText := textOf(value)
	f := c.fieldAt(x)
	switch {
	case !isText || f == nil:
	case f.enum != nil && !slices.Contains(f.enum, text):
		fail(value, "%s is never %q%s", f.path(), shorten(text), oneOfThese(text, f.enum))
	case f.addr && text != "":
		a, err := netip.ParseAddr(text)
		if err != nil {
			fail(value, "%s is an address and never %q; a network is asked with %s in cidr(\"10.0.0.0/8\")", f.path(), shorten(text), f.path())
		} else if canonical := a.Unmap().String(); canonical != text {
			fail(value, "%s is never written %q; write %q", f.path(), text, canonical)
		}
	}
}
