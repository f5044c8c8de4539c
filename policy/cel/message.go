package cel

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/decls"
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
		at, message := c.typeMessage(offset, issue.Message)
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

var (
	equalsForm = regexp.MustCompile(`^=`)
	andForm    = regexp.MustCompile(`^(&|(and|AND)\b)`)
	orForm     = regexp.MustCompile(`^(\||(or|OR)\b)`)
	notForm    = regexp.MustCompile(`^not\b`)
	numberEnd  = regexp.MustCompile(`\d$`)
	unitForm   = regexp.MustCompile(`^(ms|[smhd])\b`)
	quoteForm  = regexp.MustCompile(`^('[^']*|"[^"]*)$`)
	wordForm   = regexp.MustCompile(`^(\w+|(?s:.))`)
)

// syntaxMessage returns a message for the position of a syntax error. It
// recognises the syntax of other languages.
func syntaxMessage(text string, offset int) (at int, message string) {
	runes := []rune(text)
	offset = min(offset, len(runes))
	rest := string(runes[offset:])
	before := strings.TrimRight(string(runes[:offset]), " \t\n")
	switch {
	case equalsForm.MatchString(rest):
		return offset, "operator = is unknown; equality is =="
	case andForm.MatchString(rest):
		return offset, "conditions are joined by &&"
	case orForm.MatchString(rest):
		return offset, "alternatives are joined by ||"
	case notForm.MatchString(rest):
		return offset, "not is written !, around the whole condition: !(a in b)"
	case strings.HasSuffix(before, "not"):
		return len([]rune(before)) - 3, "not is written !"
	case numberEnd.MatchString(before) && unitForm.MatchString(rest):
		return offset, `a duration is written duration("5m"), or days(90)`
	case quoteForm.MatchString(rest):
		return offset, "closing quote is missing"
	case strings.TrimSpace(rest) == "":
		return max(0, len([]rune(before))-1), "expression is incomplete"
	}
	return offset, fmt.Sprintf("syntax error at %.60q", wordForm.FindString(rest))
}

var (
	undeclaredForm = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	fieldForm      = regexp.MustCompile(`^undefined field '([^']*)'`)
	overloadForm   = regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '(.*)'$`)
	rangeForm      = regexp.MustCompile(`^expression of type '([^']*)' cannot be range`)
	operandForm    = regexp.MustCompile(`(?:^|[^\w.)\]}])(\w+(?:\.\w+)*)\.$`)
)

// typeMessage returns a message for an issue of the type checker.
func (c *checker) typeMessage(offset int, issue string) (at int, message string) {
	runes := []rune(c.Text)
	offset = min(afterDot(c.Text, offset), len(runes))
	if m := undeclaredForm.FindStringSubmatch(issue); m != nil {
		if at, ok := callAt(runes, offset, m[1]); ok {
			return at, fmt.Sprintf("function %s is unknown%s", m[1], c.functionHint(m[1]))
		}
		return offset, c.noVariable(m[1], string(runes[offset:]))
	}
	if m := fieldForm.FindStringSubmatch(issue); m != nil {
		object := "it"
		if operand := operandForm.FindStringSubmatch(string(runes[:offset])); operand != nil {
			object = operand[1]
		}
		return offset, fmt.Sprintf("%s has no field %s%s", object, m[1], c.fieldHint(object, m[1]))
	}
	if m := overloadForm.FindStringSubmatch(issue); m != nil {
		return c.overloadMessage(runes, offset, m[1], readable(m[2]))
	}
	if m := rangeForm.FindStringSubmatch(issue); m != nil {
		message = fmt.Sprintf("loop over a %s is impossible", readable(m[1]))
		if m[1] == networksType.TypeName() {
			message += networksHint
		}
		return offset, message
	}
	switch {
	case strings.HasPrefix(issue, "invalid duration argument"):
		return offset, `duration is invalid; units are h, m and s, for instance duration("36h"), and days(90) is one too`
	case strings.HasPrefix(issue, "invalid matches argument"):
		return offset, "regular expression is invalid or too large; the syntax is RE2's"
	}
	return offset, readable(issue)
}

// callAt returns the offset of the name of a call, whose location in CEL is its parenthesis.
func callAt(runes []rune, offset int, function string) (at int, ok bool) {
	at = offset - len([]rune(function))
	return at, at >= 0 && strings.HasPrefix(string(runes[at:]), function+"(")
}

// noVariable returns the message for an unknown name.
func (c *checker) noVariable(name, rest string) string {
	full := name
	if after, ok := strings.CutPrefix(rest, name+"."); ok && !strings.Contains(name, ".") {
		full = name + "." + wordForm.FindString(after)
	}
	kind, member, _ := strings.Cut(full, ".")
	if kind == "lists" || kind == "networks" {
		lists := slices.Sorted(maps.Keys(c.Lists))
		if kind == "networks" {
			lists = slices.Sorted(maps.Keys(c.Networks))
		}
		return fmt.Sprintf("list %s is unknown under %s%s", member, kind, yamlfile.Suggest(member, lists))
	}
	for _, f := range c.table {
		if slices.Contains(f.Enum, full) {
			return fmt.Sprintf("variable %s is unknown; text is written in quotes: %q", full, full)
		}
	}
	known := slices.Concat(Objects(), Names(c.table, ""), []string{"lists", "networks"})
	return fmt.Sprintf("variable %s is unknown%s", kind, yamlfile.SuggestOrList(kind, known))
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
	names := slices.Collect(maps.Keys(c.env.Functions())) // and operators, which no name resembles
	for _, m := range c.env.Macros() {
		names = append(names, m.Function())
	}
	return yamlfile.Suggest(name, names)
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

const networksHint = "; write, for instance: request.ip in networks.office"

// overloadMessage returns the message for an operator or function with arguments of the wrong
// types.
func (c *checker) overloadMessage(runes []rune, offset int, function, args string) (at int, message string) {
	networks := strings.Contains(args, "set of networks")
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
		if networks {
			message += networksHint
		}
		return offset, message
	}
	if name, ok := callAt(runes, offset, function); ok {
		offset = name
	}
	switch {
	case networks:
		return offset, fmt.Sprintf("a set of networks has no %s%s", function, networksHint)
	case strings.Contains(args, ".("):
		return offset, fmt.Sprintf("%s has no form for %s", function, args)
	}
	message = fmt.Sprintf("%s cannot take %s", function, args)
	f := c.env.Functions()[function]
	if f != nil && slices.ContainsFunc(f.OverloadDecls(), (*decls.OverloadDecl).IsMemberFunction) {
		message += fmt.Sprintf("; it is written a.%s(b)", function)
	}
	return offset, message
}
