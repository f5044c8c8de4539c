package command

import (
	"errors"

	"github.com/discharger/discharger/config/yamlfile"
)

// Report writes the error of a command. Each problem of a file has lines of its
// own, the first of which begins with the place; an excerpt of the file follows.
func (t *Terminal) Report(err error) {
	var problems yamlfile.Problems
	switch {
	case errors.As(err, &problems):
		if _, err := problems.WriteTo(t.Err); err != nil {
			t.Say("%s", Plain(problems.Error()))
		}
	case err != nil:
		t.Say("discharger: %s", Plain(err.Error()))
	}
}
