package sessions

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/go-json-experiment/json"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/wire"
)

// errSomeFailed is the error of a batch with a line that failed or has an unknown name.
var errSomeFailed = errors.New("some revocations failed or have an unknown name; see the lines above")

// revokeFrom makes the revocations in a file and writes one result per line.
func revokeFrom(t *command.Terminal, ctx context.Context, client *client.Client, path string) error {
	r := t.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("read revocations: %w", err)
		}
		defer f.Close()
		r = f
	}
	entries, err := readEntries(r)
	if err != nil {
		return fmt.Errorf("read revocations: %w", err)
	}
	var failed, unavailable bool
	ended := 0
	for len(entries) > 0 {
		n := min(len(entries), wire.MaxRevoke)
		results, err := client.RevokeBatch(ctx, entries[:n])
		if err != nil {
			return err
		}
		entries = entries[n:]
		for _, x := range results {
			ended += x.Ended
			failed = failed || x.Error != nil || x.Ended == 0 && !x.Known
			unavailable = unavailable || x.Error != nil && x.Error.Code == wire.CodeUnavailable
			line, err := json.Marshal(x)
			if err == nil {
				_, err = fmt.Fprintln(t.Out, string(line))
			}
			if err != nil {
				return err
			}
		}
	}
	t.Say("revoked: %s ended now", plural(ended, "session"))
	switch {
	case unavailable:
		return command.Mark(errSomeFailed, command.ErrUnavailable)
	case failed:
		return errSomeFailed
	}
	return nil
}

// readEntries reads one revocation a line, and skips empty lines. All of them are
// read before the first is made.
func readEntries(r io.Reader) (entries []wire.RevokeEntry, err error) {
	in := bufio.NewScanner(r)
	for n := 1; in.Scan(); n++ {
		line := bytes.TrimSpace(in.Bytes())
		if len(line) == 0 {
			continue
		}
		var e wire.RevokeEntry
		if err := e.UnmarshalJSON(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		entries = append(entries, e)
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, errors.New("the file is empty")
	}
	return entries, nil
}
