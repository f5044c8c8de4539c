package command

import (
	"errors"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy/rulefile"
)

// Report writes the error of a command. Each problem of a file has lines of its
// own, the first of which begins with the place; an excerpt of the file follows.
func (t *Terminal) Report(err error) {
	switch problems := problemsIn(err).(type) {
	case yamlfile.Problems:
		if _, err := problems.WriteTo(t.Err); err != nil {
			t.Say("%s", Plain(problems.Error()))
		}
	case rulefile.Problems:
		if _, err := problems.WriteTo(t.Err); err != nil {
			t.Say("%s", Plain(problems.Error()))
		}
	case nil:
		if err != nil {
			t.Say("discharger: %s", Plain(err.Error()))
		}
	default:
		t.Say("%s", Plain(problems.Error()))
	}
}

// problemsIn finds the mistakes in files that an error is about, or nil.
func problemsIn(err error) error {
	var configuration yamlfile.Problems
	var rules rulefile.Problems
	switch {
	case errors.As(err, &configuration):
		return configuration
	case errors.As(err, &rules):
		return rules
	}
	return nil
}
