package cel

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"

	"github.com/discharger/discharger/config/yamlfile"
)

// issues reports the issues of CEL with the messages of this package.
func (c *checker) issues(found *cel.Issues) {
	for _, issue := range found.Errors() {
		offset := offsetOf(c.Text, issue.Location)
		if strings.HasPrefix(issue.Message, "Syntax error") {
			at, message := syntaxMessage(c.Text, offset)
			c.fail(at, "%s", message)
			return // those after it are consequences
		}
		at, message := c.typeMessage(c.Text, offset, issue)
		c.fail(at, "%s", message)
	}
}

// offsetOf returns the offset in characters of a line and column of CEL.
func offsetOf(text string, at common.Location) int {
	offset := 0
	for i, line := range strings.Split(text, "\n") {
		if i == at.Line()-1 {
			return offset + max(0, at.Column())
		}
		offset += len([]rune(line)) + 1
	}
	return 0
}

// syntaxMessage returns a message for the position of a syntax error. It
// recognises the syntax of other languages.
func syntaxMessage(text string, offset int) (at int, message string) {
	runes := []rune(text)
	offset = min(offset, len(runes))
	rest := string(runes[offset:])
	before := strings.TrimRight(string(runes[:offset]), " \t\n")
	word := func(s string) bool {
		after, found := strings.CutPrefix(rest, s)
		return found && (after == "" || !isWordByte(after[0]))
	}
	switch {
	case strings.HasPrefix(rest, "="):
		return offset, "operator = is unknown; equality is =="
	case strings.HasPrefix(rest, "&"), word("and"), word("AND"):
		return offset, "conditions are joined by &&"
	case strings.HasPrefix(rest, "|"), word("or"), word("OR"):
		return offset, "alternatives are joined by ||"
	case word("not"):
		return offset, "not is written !, around the whole condition: !(a in b)"
	case strings.HasSuffix(before, "not"):
		return len([]rune(before)) - 3, "not is written !"
	case numberEnd.MatchString(before) && unitStart.MatchString(rest):
		return offset, `a duration is written duration("5m"), or days(90)`
	case strings.HasPrefix(rest, "'"), strings.HasPrefix(rest, `"`):
		if !strings.ContainsRune(rest[1:], rune(rest[0])) {
			return offset, "closing quote is missing"
		}
	case strings.TrimSpace(rest) == "":
		return max(0, len([]rune(before))-1), "expression is incomplete"
	}
	return offset, fmt.Sprintf("syntax error at %.60q", firstWord(rest))
}

var (
	numberEnd = regexp.MustCompile(`\d$`)
	unitStart = regexp.MustCompile(`^(ms|[smhd])\b`)
)

func isWordByte(b byte) bool {
	return b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

func firstWord(s string) string {
	n := 0
	for n < len(s) && isWordByte(s[n]) {
		n++
	}
	if n == 0 {
		return string([]rune(s)[:1])
	}
	return s[:n]
}

var (
	undeclaredForm = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	fieldForm      = regexp.MustCompile(`^undefined field '([^']*)'`)
	overloadForm   = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '(.*)'$`)
	rangeForm      = regexp.MustCompile(`^expression of type '([^']*)' cannot be range`)
	argumentForm   = regexp.MustCompile(`^invalid (\w+) argument`)
)

// typeMessage returns a message for an issue of the type checker.
func (c *checker) typeMessage(text string, offset int, issue *common.Error) (at int, message string) {
	runes := []rune(text)
	offset = afterDot(text, offset)
	rest := string(runes[min(offset, len(runes)):])
	if m := undeclaredForm.FindStringSubmatch(issue.Message); m != nil {
		name := m[1]
		if back := offset - len([]rune(name)); back >= 0 && strings.HasPrefix(string(runes[back:]), name+"(") {
			return back, fmt.Sprintf("function %s is unknown%s", name, c.functionHint(name))
		}
		return offset, c.noVariable(name, rest)
	}
	if m := fieldForm.FindStringSubmatch(issue.Message); m != nil {
		object := c.operandOf(text, issue.ExprID)
		return offset, fmt.Sprintf("%s has no field %s%s", object, m[1], c.fieldHint(object, m[1]))
	}
	if m := overloadForm.FindStringSubmatch(issue.Message); m != nil {
		return c.overloadMessage(runes, offset, m[1], readable(m[2]))
	}
	if m := rangeForm.FindStringSubmatch(issue.Message); m != nil {
		message = fmt.Sprintf("loop over a %s is impossible", readable(m[1]))
		if m[1] == networksType.TypeName() {
			message += "; write, for instance: request.ip in networks.office"
		}
		return offset, message
	}
	if m := argumentForm.FindStringSubmatch(issue.Message); m != nil {
		switch m[1] {
		case "duration":
			return offset, `duration is invalid; units are h, m and s, for instance duration("36h"), and days(90) is one too`
		case "matches":
			return offset, "regular expression is invalid or too large; the syntax is RE2's"
		}
	}
	return offset, readable(issue.Message)
}

// noVariable returns the message for an unknown name.
func (c *checker) noVariable(name, rest string) string {
	full := name
	if after, ok := strings.CutPrefix(rest, name+"."); ok && !strings.Contains(name, ".") {
		full = name + "." + firstWord(after)
	}
	kind, member, _ := strings.Cut(full, ".")
	switch kind + "." {
	case listPrefix:
		return fmt.Sprintf("list %s is unknown under lists%s", member, yamlfile.Suggest(member, c.lists))
	case networkPrefix:
		return fmt.Sprintf("list %s is unknown under networks%s", member, yamlfile.Suggest(member, c.networks))
	}
	for _, f := range c.table {
		if slices.Contains(f.Enum, full) {
			return fmt.Sprintf("variable %s is unknown; text is written in quotes: %q", full, full)
		}
	}
	return fmt.Sprintf("variable %s is unknown%s", kind, yamlfile.SuggestOrList(kind, slices.Concat(Objects(), Names(c.table, ""), []string{"lists", "networks"})))
}

// fieldHint returns a hint for an unknown field: a similar name or an expression.
func (c *checker) fieldHint(object, name string) string {
	switch name {
	case "age":
		return "; the age is now - session.created"
	case "idle":
		return "; the time without use is now - session.last_used"
	case "time":
		return "; the time is now"
	}
	names := Names(c.table, object)
	if len(names) == 0 {
		return ""
	}
	return yamlfile.SuggestOrList(name, names)
}

// functionHint returns a hint for an unknown function: a similar name or an expression.
func (c *checker) functionHint(name string) string {
	switch strings.ToLower(name) {
	case "hour", "hours", "weekday", "dayofweek", "time", "between", "within":
		return `; use now.during("Mon-Fri 08:00-18:00", "Europe/Berlin"), now.getHours("Europe/Berlin") or now.getDayOfWeek("Europe/Berlin")`
	case "incidr", "innetwork", "cidrmatch":
		return `; write request.ip in networks.office, or request.ip in cidr("10.0.0.0/8")`
	}
	return yamlfile.Suggest(name, c.functionNames())
}

// operandOf returns the path of the operand of a selection.
func (c *checker) operandOf(text string, id int64) string {
	parsed, issues := c.env.Parse(text)
	if issues != nil && issues.Err() != nil {
		return "it"
	}
	object := "it"
	ast.PostOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.ID() == id && e.Kind() == ast.SelectKind {
			if path := pathOf(e.AsSelect().Operand()); path != "" {
				object = path
			}
		}
	}))
	return object
}

// pathOf returns a chain of selections as a.b.c, or "".
func pathOf(e ast.Expr) string {
	switch e.Kind() {
	case ast.IdentKind:
		return e.AsIdent()
	case ast.SelectKind:
		if operand := pathOf(e.AsSelect().Operand()); operand != "" {
			return operand + "." + e.AsSelect().FieldName()
		}
	}
	return ""
}

func (c *checker) functionNames() []string {
	var names []string
	for name := range c.env.Functions() {
		if isWordByte(name[0]) {
			names = append(names, name)
		}
	}
	for _, m := range c.env.Macros() {
		names = append(names, m.Function())
	}
	return names
}

// overloadMessage returns the message for an operator or function with arguments of the wrong
// types.
func (c *checker) overloadMessage(runes []rune, offset int, function, args string) (at int, message string) {
	if symbol, ok := operators.FindReverse(function); ok && symbol != "" {
		message = fmt.Sprintf("%s cannot take %s", symbol, args)
		switch args {
		case "(duration, int)", "(int, duration)":
			message += `; write the number as a duration, for instance duration("90s") or days(90)`
		case "(timestamp, string)", "(string, timestamp)":
			message += `; write the time as timestamp("2006-01-02T15:04:05Z")`
		case "(timestamp, int)":
			message += "; write the number as a duration, for instance days(90)"
		case "(timestamp, duration)":
			message += "; the difference of two timestamps is a duration"
		}
		if strings.Contains(args, "null") {
			message += "; test for a value with has(session.expires)"
		}
		if strings.Contains(args, "set of networks") {
			message += "; write, for instance: request.ip in networks.office"
		}
		return offset, message
	}
	if back := offset - len([]rune(function)); back >= 0 && strings.HasPrefix(string(runes[back:]), function+"(") {
		offset = back
	}
	if strings.Contains(args, "set of networks") {
		return offset, fmt.Sprintf("a set of networks has no %s; write, for instance: request.ip in networks.office", function)
	}
	if strings.Contains(args, ".(") {
		return offset, fmt.Sprintf("%s has no form for %s", function, args)
	}
	message = fmt.Sprintf("%s cannot take %s", function, args)
	if f, ok := c.env.Functions()[function]; ok {
		for _, o := range f.OverloadDecls() {
			if o.IsMemberFunction() {
				return offset, message + fmt.Sprintf("; it is written a.%s(b)", function)
			}
		}
	}
	return offset, message
}
