package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/discharger/client"
)

func testTerminal(out *bytes.Buffer) *terminal {
	return &terminal{
		in: strings.NewReader(""), out: out, err: out, now: time.Now,
		lookupEnv: func(string) (string, bool) { return "", false },
	}
}

// Every command explains itself and every flag of it.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, c := range commands() {
		var out bytes.Buffer
		if code := run(t.Context(), testTerminal(&out), append(strings.Fields(c.name), "-h")); code != exitOK {
			t.Errorf("%s -h: exit code %d", c.name, code)
		}
		text := out.String()
		if !strings.HasPrefix(text, "usage: discharger "+c.name) || !strings.Contains(text, c.about) {
			t.Errorf("%s -h says\n%s", c.name, text)
		}
		f := flag.NewFlagSet(c.name, flag.ContinueOnError)
		c.setup(testTerminal(&out), f)
		f.VisitAll(func(fl *flag.Flag) {
			if fl.Usage == "" || !strings.Contains(text, "-"+fl.Name) {
				t.Errorf("%s does not explain --%s", c.name, fl.Name)
			}
			for _, secret := range []string{"password", "secret", "token", "api-key"} {
				if strings.Contains(fl.Name, secret) {
					t.Errorf("%s takes a secret in the flag --%s", c.name, fl.Name)
				}
			}
		})
	}
}

func TestParseAnywhere(t *testing.T) {
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
		{"", "[] false"},
	} {
		f := flag.NewFlagSet("", flag.ContinueOnError)
		f.SetOutput(io.Discard)
		x := f.Bool("x", false, "")
		positional, err := parse(f, strings.Fields(tt.args))
		if got := fmt.Sprint(positional, " ", *x); got != tt.want || err != nil {
			t.Errorf("%q gave %s, %v; want %s", tt.args, got, err, tt.want)
		}
	}
}

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
		{usagef("x"), 2},
		{fmt.Errorf("x: %w", &client.UnavailableError{Err: io.EOF}), 3},
		{mark(io.EOF, errUnavailable), 3},
		{yamlfile.Problems{{Message: "x"}}, 78},
		{mark(fs.ErrNotExist, errConfig), 78},
		{errors.Join(mark(io.EOF, errConfig), io.EOF), 78},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%v gave %d, want %d", tt.err, got, tt.want)
		}
	}
	if err := mark(fs.ErrNotExist, errConfig); err.Error() != fs.ErrNotExist.Error() || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("marking made %v of the error", err)
	}
	if mark(nil, errConfig) != nil {
		t.Error("marking made an error of nil")
	}
}

func TestDialable(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		"127.0.0.1:1": "127.0.0.1:1",
		":1":          "127.0.0.1:1",
		"0.0.0.0:1":   "127.0.0.1:1",
		"[::]:1":      "127.0.0.1:1",
		"[::1]:1":     "[::1]:1",
		"localhost:1": "localhost:1",
	} {
		if got := dialable(listen); got != want {
			t.Errorf("%s is asked at %s, want %s", listen, got, want)
		}
	}
}

// Nothing that a terminal would act on gets through.
func TestQuoted(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"@alice:example.org": "@alice:example.org",
		"ä日":                 "ä日",
		"\x1b[2J":            `"\x1b[2J"`,
		"a\nb":               `"a\nb"`,
		"\u202eabc":          `"\u202eabc"`,
		`a"b`:                `"a\"b"`,
		"\xff":               `"\xff"`,
	} {
		if got := quoted(text); got != want {
			t.Errorf("%q became %s, want %s", text, got, want)
		}
	}
}

// What a service says in an error does not get through either, and stays
// readable.
func TestPlain(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"refused: «no»\n\tagain": "refused: «no»\n\tagain",
		"\x1b[2J\u202eabc\xff":   `\x1b[2J\u202eabc` + "\ufffd",
	} {
		if got := plain(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

// The names of commands are what the package comment promises.
func TestCommands(t *testing.T) {
	t.Parallel()
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	for _, want := range []string{
		"serve", "demo", "keys new", "keys list", "keys retire", "mint", "inspect", "discharge", "refresh",
		"logout", "verify", "config check", "config example", "health",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("there is no command %s", want)
		}
	}
}

func FuzzInspect(f *testing.F) {
	f.Add([]byte(`{"service":"x","access":"AAAA","bundle":"","expires":"2026-01-02T15:04:05Z"}`))
	f.Add([]byte("AgEAAgEAAAAGIAAA"))
	f.Add([]byte("eyJUaGlyZFBhcnR5UHVibGljS2V5IjoiIn0"))
	f.Add([]byte(`{"caveats":[],"location":"","identifier":"a","signature":"00"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		tt := testTerminal(&out)
		tt.in = bytes.NewReader(data)
		run(t.Context(), tt, []string{"inspect"})
		if strings.ContainsAny(out.String(), "\x00\x1b\r") {
			t.Fatalf("a terminal would act on %q", out.String())
		}
	})
}
