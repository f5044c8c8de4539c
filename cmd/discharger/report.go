package main

import (
	"errors"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy"
)

// report writes the error of a command. Each problem of a file has lines of its
// own, the first of which begins with the place; an excerpt of the file follows.
func (t *terminal) report(err error) {
	switch problems := problemsIn(err).(type) {
	case yamlfile.Problems:
		if _, err := problems.WriteTo(t.err); err != nil {
			t.say("%s", plain(problems.Error()))
		}
	case policy.Problems:
		if _, err := problems.WriteTo(t.err); err != nil {
			t.say("%s", plain(problems.Error()))
		}
	case nil:
		if err != nil {
			t.say("discharger: %s", plain(err.Error()))
		}
	default:
		t.say("%s", plain(problems.Error()))
	}
}

// problemsIn finds the mistakes in files that an error is about, or nil.
func problemsIn(err error) error {
	var configuration yamlfile.Problems
	var rules policy.Problems
	switch {
	case errors.As(err, &configuration):
		return configuration
	case errors.As(err, &rules):
		return rules
	}
	return nil
}
