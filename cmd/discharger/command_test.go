package main

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
)

func testTerminal(out *bytes.Buffer) *command.Terminal {
	return &command.Terminal{
		In: strings.NewReader(""), Out: out, Err: out, Now: time.Now,
		LookupEnv: func(string) (string, bool) { return "", false },
	}
}

// commands returns all commands.
func commands() (all []command.Command) {
	for _, g := range program().Groups {
		all = append(all, g.Commands...)
	}
	return all
}

// TestHelp checks that each command describes itself and every flag, with an example
// that names flags and commands which exist.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, c := range commands() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if code := program().Run(t.Context(), testTerminal(&out), append(strings.Fields(c.Name), "-h")); code != command.ExitOK {
				t.Errorf("exit code %d", code)
			}
			text := out.String()
			if !strings.HasPrefix(text, "usage: discharger "+c.Name) || !strings.Contains(text, c.Short) {
				t.Errorf("help is\n%s", text)
			}
			if !strings.Contains(c.Example, "discharger "+c.Name) {
				t.Error("help has no example")
			}
			f := flag.NewFlagSet(c.Name, flag.ContinueOnError)
			c.Setup(testTerminal(&out), f)
			f.VisitAll(func(fl *flag.Flag) {
				if fl.Usage == "" || !strings.Contains(text, "--"+fl.Name) {
					t.Errorf("help does not describe --%s", fl.Name)
				}
				for _, secret := range []string{"password", "secret", "token", "api-key"} {
					if strings.Contains(fl.Name, secret) {
						t.Errorf("--%s takes a secret", fl.Name)
					}
				}
			})
			for name := range c.Values {
				if f.Lookup(name) == nil {
					t.Errorf("completion is for --%s, which does not exist", name)
				}
			}
			for _, name := range regexp.MustCompile(`--[a-z-]+`).FindAllString(c.Example, -1) {
				if strings.HasPrefix(c.Example, "discharger "+c.Name) && strings.Count(c.Example, "discharger ") == 1 && f.Lookup(name[2:]) == nil {
					t.Errorf("the example has %s, which does not exist", name)
				}
			}
		})
	}
}

// TestCommands checks the names that the package comment promises.
func TestCommands(t *testing.T) {
	t.Parallel()
	var names []string
	for _, c := range commands() {
		names = append(names, c.Name)
	}
	for _, want := range []string{
		"serve", "demo", "keys new", "keys list", "keys retire", "mint", "inspect", "discharge", "refresh",
		"logout", "verify", "config check", "config example", "health",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("command %s does not exist", want)
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
		tt.In = bytes.NewReader(data)
		program().Run(t.Context(), tt, []string{"inspect"})
		if strings.ContainsAny(out.String(), "\x00\x1b\r") {
			t.Fatalf("a terminal would act on %q", out.String())
		}
	})
}
