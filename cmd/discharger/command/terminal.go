package command

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/atomicfile"
)

// Terminal has the streams, the environment and the clock of a command.
type Terminal struct {
	In        io.Reader
	Out, Err  io.Writer
	LookupEnv func(string) (string, bool)
	Now       func() time.Time
}

// Env returns an environment variable, or def if it is unset or empty.
func (t *Terminal) Env(name, def string) string {
	if v, ok := t.LookupEnv(name); ok && v != "" {
		return v
	}
	return def
}

// maxInput bounds the input from files and standard input, in bytes.
const maxInput = 128 << 10

// Input reads the file that the first argument names, or standard input without an
// argument and for "-". White space around the contents is removed.
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
		return nil, errors.New("read input: it is empty")
	}
	return data, nil
}

// Output writes text and a line break to a new file with mode 0600, or to
// standard output if the path is empty or "-".
func (t *Terminal) Output(path, text string) error {
	if path == "" || path == "-" {
		_, err := fmt.Fprintln(t.Out, text)
		return err
	}
	return atomicfile.Create(path, []byte(text+"\n"))
}

// JSON writes a value, indented, as [Terminal.Output] does.
func (t *Terminal) JSON(path string, v any) error {
	b, err := json.Marshal(v, jsontext.WithIndent("  "))
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return t.Output(path, string(b))
}

// Table returns a writer of aligned columns below a header, separated by tabs. It
// prints at Flush.
func (t *Terminal) Table(header string) *tabwriter.Writer {
	w := tabwriter.NewWriter(t.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, header)
	return w
}

// Say writes a line to standard error: a message for people, which is not part of the
// output.
func (t *Terminal) Say(format string, args ...any) { fmt.Fprintf(t.Err, format+"\n", args...) }

// Plain escapes the control characters in a text from outside, other than line breaks
// and tabs.
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

// Quoted returns a text from outside, in quotes if a character of it is escaped.
func Quoted(s string) string {
	if q := strconv.Quote(s); q[1:len(q)-1] != s {
		return q
	}
	return s
}
