package command

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/discharger/discharger/discharger/atomicfile"
)

// terminal is everything that a command touches beside files and the network.
type Terminal struct {
	In        io.Reader
	Out, Err  io.Writer
	LookupEnv func(string) (string, bool)
	Now       func() time.Time
}

// env is an environment variable, or a default if it is unset or empty.
func (t *Terminal) Env(name, def string) string {
	if v, ok := t.LookupEnv(name); ok && v != "" {
		return v
	}
	return def
}

// maxInput bounds what is read from files and standard input, in bytes.
const maxInput = 128 << 10

// input reads the file that the first argument names, or standard input if
// there is none or it is "-". White space around what is there is not part of
// it.
func (t *Terminal) Input(args []string) ([]byte, error) {
	r := t.In
	if len(args) > 0 && args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return nil, fmt.Errorf("read input: %w", err)
		}
		defer f.Close()
		r = f
	}
	data, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("read input: %w", err)
	}
	if len(data) > maxInput {
		return nil, fmt.Errorf("read input: longer than %d bytes", maxInput)
	}
	if data = bytes.TrimSpace(data); len(data) == 0 {
		return nil, errors.New("read input: there is nothing in it")
	}
	return data, nil
}

// output writes text and a line break to a new file with mode 0600, or to
// standard output if the path is empty or "-".
func (t *Terminal) Output(path, text string) error {
	if path == "" || path == "-" {
		_, err := fmt.Fprintln(t.Out, text)
		return err
	}
	return atomicfile.Create(path, []byte(text+"\n"))
}

// say writes a line for people, to standard error, so that it is not in the way
// of what is piped on.
func (t *Terminal) Say(format string, args ...any) { fmt.Fprintf(t.Err, format+"\n", args...) }

// plain makes control characters visible, which may come from a service or a
// file, and leaves lines as they are.
func Plain(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			b.WriteRune(r)
			continue
		}
		b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
	}
	return b.String()
}

// quoted shows one text from elsewhere, in quotes if there is anything to
// notice about it.
func Quoted(s string) string {
	if q := strconv.Quote(s); q[1:len(q)-1] != s {
		return q
	}
	return s
}
