package command

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// testProgram has two commands, whose flags and arguments it prints.
func testProgram() *Program {
	echo := func(name string, most int) Command {
		return Command{
			Name: name, Args: "[flags] [argument...]", Short: "Print flags and arguments.", Max: most,
			Setup: func(t *Terminal, f *pflag.FlagSet) Action {
				x := f.BoolP("x", "x", false, "a truth value")
				config := f.String("config", "", "configuration `file`")
				out := f.StringP("output", "o", "", "`file` to make")
				return func(_ context.Context, args []string) error {
					_, err := fmt.Fprint(t.Out, args, " ", *x, *config, *out)
					return err
				}
			},
		}
	}
	return &Program{
		Name: "program", Short: "A program.", Closing: "Bye.", Version: "program v1",
		Groups: []Group{{Title: "All", Commands: []Command{echo("echo", 3), echo("group one", 3), echo("group two", 1)}}},
	}
}

// runTest runs a command line of the test program.
func runTest(t *testing.T, args string) (out, errs string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	terminal := &Terminal{
		In: io.NopCloser(strings.NewReader("")), Out: &stdout, Err: &stderr, Now: time.Now,
		LookupEnv: func(string) (string, bool) { return "", false },
	}
	code = testProgram().Run(t.Context(), terminal, strings.Fields(args))
	return stdout.String(), stderr.String(), code
}

func TestFlagsStandAnywhere(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		want string
	}{
		{"a b", "[a b] false"},
		{"-x a b", "[a b] true"},
		{"a -x b", "[a b] true"},
		{"a b --x", "[a b] true"},
		{"a -- -x", "[a -x] false"},
		{"-- -x b", "[-x b] false"},
		{"-x -- -- a", "[-- a] true"},
		{"- -x", "[-] true"},
		{"a -wKJrhbOxcMokoUOnazjSA -x", "[a -wKJrhbOxcMokoUOnazjSA] true"},
		{"-IH83udFeNz6qSEpluh-4E_XwQDjyS499oGM8QGPNQE -x", "[-IH83udFeNz6qSEpluh-4E_XwQDjyS499oGM8QGPNQE] true"},
		{"--KJrhbOxcMokoUOnazjSA b", "[--KJrhbOxcMokoUOnazjSA b] false"},
		{"--config -wKJrhbOxcMokoUOnazjSA b", "[b] false-wKJrhbOxcMokoUOnazjSA"},
		{"-o -wKJrhbOxcMokoUOnazjSA b", "[b] false-wKJrhbOxcMokoUOnazjSA"},
		{"-- -wKJrhbOxcMokoUOnazjSA", "[-wKJrhbOxcMokoUOnazjSA] false"},
		{"--o file", "[] falsefile"},
		{"--output=file", "[] falsefile"},
		{"", "[] false"},
	} {
		for _, command := range []string{"echo ", "group one "} {
			t.Run(command+tt.args, func(t *testing.T) {
				t.Parallel()
				if out, errs, code := runTest(t, command+tt.args); out != tt.want || code != ExitOK {
					t.Errorf("got %s, exit code %d, %s; want %s", out, code, errs, tt.want)
				}
			})
		}
	}
}

func TestMisspelling(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"ehco":                  `no command "ehco" (did you mean echo?); see program help`,
		"nothing":               `no command "nothing"; see program help`,
		"group":                 "group needs a command: group one, group two",
		"group oen":             `no command "group oen" (did you mean group one?)`,
		"group nothing":         `no command "group nothing": the commands are group one, group two`,
		"help ehco":             `no command "ehco" (did you mean echo?); see program help`,
		"echo -config c":        "echo: no flag -config (did you mean --config?); see program echo -h",
		"echo -config=c":        "echo: no flag -config (did you mean --config?); see program echo -h",
		"echo --confg c":        "echo: no flag --confg (did you mean --config?)",
		"echo --nothing":        "echo: no flag --nothing; see program echo -h",
		"echo --config":         "echo: flag needs an argument: --config; see program echo -h",
		"group one --nothing":   "group one: no flag --nothing; see program group one -h",
		"group two a b":         "group two: too many arguments",
		"":                      "a command is missing",
		"--verson":              "no flag --verson (did you mean --version?); see program -h",
		"echo a b c d":          "echo: too many arguments",
		"group one -nothing -x": "group one: no flag -nothing",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			if out, errs, code := runTest(t, args); code != ExitUsage || !strings.Contains(errs, want) || out != "" {
				t.Errorf("exit code %d, output %q, error %q; want %q", code, out, errs, want)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-h":             "program group one",
		"help":           "program echo",
		"--help":         "Bye.",
		"--version":      "program v1\n",
		"echo -h":        "usage: program echo [flags] [argument...]",
		"echo -help":     "-o, --output file",
		"echo a --help":  "configuration file",
		"help echo":      "usage: program echo",
		"help group":     "program group two",
		"help group one": "usage: program group one",
		"group -h":       "program group one",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			if out, errs, code := runTest(t, args); code != ExitOK || !strings.Contains(out, want) || errs != "" {
				t.Errorf("exit code %d, error %q, output\n%s\nwant %q", code, errs, out, want)
			}
		})
	}
}
