// Command bench measures the discharger beside other implementations of parts of
// its work. It is a module of its own, so that no reference is a dependency of the
// discharger.
//
//	go run -C cmd/bench .           # one workload, --compare with references
//	go run -C cmd/bench . numbers   # every number that has a bound
//	go run -C cmd/bench . growth    # cost against the number of sessions, rules, homeservers
//	go run -C cmd/bench . soak      # restarts and crashes under load
//
// It builds the discharger from the source tree, unless --discharger names a
// program. A Redis of its own needs redis-server.
//
// Exit codes are 0 for a finished run, 1 for a failed one, and 2 for wrong usage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/discharger/discharger/cmd/bench/reference"
)

func main() { os.Exit(run(os.Args[1:])) }

// run executes a command line and returns the exit code.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root, program := newCommand()
	root.SetArgs(args)
	err := errors.Join(root.ExecuteContext(ctx), program.remove())
	if err == nil {
		return 0
	}
	fmt.Fprintf(root.ErrOrStderr(), "bench: %v\n", err)
	if usage := (*usageError)(nil); errors.As(err, &usage) {
		return 2
	}
	return 1
}

// usageError is an error of the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

func newCommand() (*cobra.Command, *program) {
	p := &program{}
	root := newRun(p)
	root.PersistentFlags().StringVar(&p.path, "discharger", "", "`file` of the discharger (default: built from the source tree)")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usagef("%v", err) })
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(newNumbers(p), newGrowth(p), newSoak(p), newReference())
	return root, p
}

// newReference returns the hidden command that serves one reference in a
// subprocess of bench.
func newReference() *cobra.Command {
	return &cobra.Command{
		Use: "reference", Short: "Serve one reference, as described on standard input.", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			err := reference.Run(c.Context(), c.InOrStdin(), c.OutOrStdout())
			if errors.Is(err, io.EOF) {
				return usagef("reference: started by bench alone")
			}
			return err
		},
	}
}

// program is the discharger that is measured.
type program struct {
	path string // by --discharger, or once built
	dir  string // holds a built one
}

// file returns the path of the discharger, which it builds if no flag names one.
func (p *program) file(ctx context.Context) (string, error) {
	if p.path != "" {
		return filepath.Abs(p.path)
	}
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/discharger/discharger").Output()
	if err != nil {
		return "", fmt.Errorf("find the source tree: %w; run bench as go run -C cmd/bench . or name a program with --discharger", err)
	}
	if p.dir, err = os.MkdirTemp("", "discharger-bench"); err != nil {
		return "", err
	}
	p.path = filepath.Join(p.dir, "discharger")
	build := exec.CommandContext(ctx, "go", "build", "-o", p.path, "./cmd/discharger")
	build.Dir = strings.TrimSpace(string(root))
	if text, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the discharger: %w\n%s", err, text)
	}
	return p.path, nil
}

// self returns the path of this program, which serves the references.
func self() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return path, nil
}

// remove deletes a built discharger.
func (p *program) remove() error {
	if p.dir == "" {
		return nil
	}
	return os.RemoveAll(p.dir)
}

// progress returns standard error if it is a terminal, for output that overwrites
// itself.
func progress() io.Writer {
	info, err := os.Stderr.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return io.Discard
	}
	return os.Stderr
}

// write writes a report as indented JSON or as text.
func write(w io.Writer, asJSON bool, report interface{ WriteText(io.Writer) error }) error {
	if !asJSON {
		return report.WriteText(w)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(report)
}

// words joins texts for a message.
func words[T ~string](all []T) string {
	texts := make([]string, len(all))
	for i, w := range all {
		texts[i] = string(w)
	}
	return strings.Join(texts, ", ")
}

// list splits a flag's value at commas.
func list(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
}
