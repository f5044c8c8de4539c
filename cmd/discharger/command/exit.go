package command

import (
	"errors"
	"fmt"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/discharger/client"
)

// The exit codes; see the package comment.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	exitUnavailable = 3
	ExitConfig      = 78 // EX_CONFIG of sysexits.h
)

// usageError is a command that was typed wrongly.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func Usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// errUnavailable is matched by what may work later, where package api has no
// error for it.
var ErrUnavailable = errors.New("unavailable")

// errConfig is matched by what has to be mended in the configuration or a key
// file first.
var ErrConfig = errors.New("cannot be used")

// marked makes an error match one of the two above without changing its text.
type marked struct {
	error
	as error
}

func (m marked) Unwrap() []error { return []error{m.error, m.as} }

func Mark(err, as error) error {
	if err == nil {
		return nil
	}
	return marked{err, as}
}

// exitCode is the one place that turns errors into exit codes.
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
