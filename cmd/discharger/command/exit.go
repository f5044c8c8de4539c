package command

import (
	"errors"
	"fmt"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/discharger/client"
)

// The exit codes; the comment of the main package describes them.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	exitUnavailable = 3
	ExitConfig      = 78 // EX_CONFIG of sysexits.h
)

// usageError is the error of a wrong command line.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

// Usagef returns an error with exit code [ExitUsage].
func Usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// ErrUnavailable is matched by errors that may be gone at the next try, beside those of
// package client.
var ErrUnavailable = errors.New("unavailable")

// ErrConfig is matched by errors of the configuration, a key file, a rule file or a
// caveat schema.
var ErrConfig = errors.New("cannot be used")

// marked is an error that matches another one too.
type marked struct {
	error
	as error
}

func (m marked) Unwrap() []error { return []error{m.error, m.as} }

// Mark returns err such that it matches as; its text stays. A nil err stays nil.
func Mark(err, as error) error {
	if err == nil {
		return nil
	}
	return marked{err, as}
}

// ExitCode returns the exit code for an error.
func ExitCode(err error) int {
	var usage *usageError
	var problems yamlfile.Problems
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &usage):
		return ExitUsage
	case errors.As(err, &problems), errors.Is(err, ErrConfig):
		return ExitConfig
	case errors.Is(err, client.ErrUnavailable), errors.Is(err, ErrUnavailable):
		return exitUnavailable
	}
	return ExitFailed
}

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
