package main

import (
	"bytes"
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/cmd/discharger/command"
)

func testTerminal(out *bytes.Buffer) *command.Terminal {
	return &command.Terminal{
		In: strings.NewReader(""), Out: out, Err: out, Now: time.Now,
		LookupEnv: func(string) (string, bool) { return "", false },
	}
}

// Every command explains itself and every flag of it.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, c := range commands() {
		var out bytes.Buffer
		if code := run(t.Context(), testTerminal(&out), append(strings.Fields(c.Name), "-h")); code != command.ExitOK {
			t.Errorf("%s -h: exit code %d", c.Name, code)
		}
		text := out.String()
		if !strings.HasPrefix(text, "usage: discharger "+c.Name) || !strings.Contains(text, c.Short) {
			t.Errorf("%s -h says\n%s", c.Name, text)
		}
		f := flag.NewFlagSet(c.Name, flag.ContinueOnError)
		c.Setup(testTerminal(&out), f)
		f.VisitAll(func(fl *flag.Flag) {
			if fl.Usage == "" || !strings.Contains(text, "-"+fl.Name) {
				t.Errorf("%s does not explain --%s", c.Name, fl.Name)
			}
			for _, secret := range []string{"password", "secret", "token", "api-key"} {
				if strings.Contains(fl.Name, secret) {
					t.Errorf("%s takes a secret in the flag --%s", c.Name, fl.Name)
				}
			}
		})
	}
}

// The names of commands are what the package comment promises.
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
		tt.In = bytes.NewReader(data)
		run(t.Context(), tt, []string{"inspect"})
		if strings.ContainsAny(out.String(), "\x00\x1b\r") {
			t.Fatalf("a terminal would act on %q", out.String())
		}
	})
}
