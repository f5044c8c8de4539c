package schema

// A Foreign collects a schema of a format that another package reads.
type Foreign struct {
	Format  Format
	ID      string
	Version int    // of the caveats that are added next, and at last of the schema
	About   string // first paragraph of the reference

	schema *Schema
}

// A Definition is a caveat of a [Foreign].
type Definition struct {
	Name, Type string
	Style      Style
	Text       string                    // form of the value, for the reference
	Example    string                    // a value that parses
	Parse      func(string) (any, error) // of the value; errors do not contain it
	Match      Matcher                   // nil: the program has to bring one
	Holds      string                    // when Match is true, for the reference
}

// Add adds a caveat that may be repeated. It returns an error if the name is invalid
// or a duplicate.
func (f *Foreign) Add(d Definition) error {
	s := f.Schema()
	if err := s.nameError(d.Name); err != nil {
		return err
	}
	s.add(&caveat{
		Caveat: Caveat{Name: d.Name, Style: d.Style, Version: f.Version, Repeat: true}, match: d.Match, holds: d.Holds,
	}, valueType{name: d.Type, text: d.Text, example: d.Example, parse: d.Parse})
	return nil
}

// Schema returns the schema with all caveats added so far.
func (f *Foreign) Schema() *Schema {
	if f.schema == nil {
		f.schema = newSchema(f.Format)
	}
	f.schema.id, f.schema.version, f.schema.about = f.ID, f.Version, f.About
	return f.schema
}
