package schema

import (
	"cmp"
	"fmt"
	"strings"
)

// Docs returns a reference of a schema's caveats in Markdown. It ends in a newline.
func Docs(s *Schema) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Caveats of schema `%s`\n", s.id)
	if s.doc != "" {
		fmt.Fprintf(&b, "\n%s\n", s.doc)
	}
	about := fmt.Sprintf("Version %d. A macaroon with a caveat that is not listed here is refused.", s.version)
	fmt.Fprintf(&b, "\n%s\n", cmp.Or(s.about, about))
	for _, c := range s.caveats {
		c.document(&b)
	}
	if len(s.context) > 0 {
		b.WriteString("\n## Context\n\nWhat the checks above use beside `value`, `now` and `ip`.\n\n" +
			"| name | type | meaning |\n| --- | --- | --- |\n")
		for _, v := range s.context {
			fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", v.Name, v.name, cell(v.Doc))
		}
	}
	return b.String()
}

// document writes the section of one caveat.
func (c *caveat) document(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n\n    %s\n", c.Name, c.example)
	if c.Doc != "" {
		fmt.Fprintf(b, "\n%s\n", c.Doc)
	}
	fmt.Fprintf(b, "\n- type `%s`: %s", c.Type, c.typeText)
	if c.MaxLen > 0 {
		fmt.Fprintf(b, "; at most %d bytes", c.MaxLen)
	}
	fmt.Fprintf(b, "\n- since version %d\n", c.Version)
	switch {
	case c.check == nil:
		fmt.Fprintf(b, "- %s\n", cmp.Or(c.holds, "decided by the program that loads the schema"))
		return
	case c.Required && c.Repeat:
		b.WriteString("- required, and may be given more than once: all must hold\n")
	case c.Required:
		b.WriteString("- required, once\n")
	case c.Repeat:
		b.WriteString("- may be given more than once: all must hold\n")
	default:
		b.WriteString("- may be given once\n")
	}
	if c.Check == "true" {
		b.WriteString("- only informs: it always holds\n")
		return
	}
	b.WriteString("- holds when\n\n")
	for line := range strings.Lines(c.Check) {
		fmt.Fprintf(b, "      %s\n", strings.TrimRight(line, "\r\n"))
	}
}

// cell puts text into a table cell.
func cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", `\|`)
}
