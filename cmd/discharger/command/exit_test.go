package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/discharger/client"
)

func TestExitCode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{fmt.Errorf("x: %w", &client.RefusedError{}), 1},
		{&client.BadRequestError{}, 1},
		{Usagef("x"), 2},
		{fmt.Errorf("x: %w", &client.UnavailableError{Err: io.EOF}), 3},
		{Mark(io.EOF, ErrUnavailable), 3},
		{yamlfile.Problems{{Message: "x"}}, 78},
		{Mark(fs.ErrNotExist, ErrConfig), 78},
		{errors.Join(Mark(io.EOF, ErrConfig), io.EOF), 78},
	} {
		if got := ExitCode(tt.err); got != tt.want {
			t.Errorf("%v gave %d, want %d", tt.err, got, tt.want)
		}
	}
	if err := Mark(fs.ErrNotExist, ErrConfig); err.Error() != fs.ErrNotExist.Error() || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("marking made %v of the error", err)
	}
	if Mark(nil, ErrConfig) != nil {
		t.Error("marking made an error of nil")
	}
}
