package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/discharger/discharger/config/yamlfile"
)

func receiver(url, more string) string {
	return fmt.Sprintf("public_url: https://d.example\nhomeservers:\n- {name: a, public_key: %s, "+
		"security_events: {url: %q, audience: r%s}}", key1, url, more)
}

func TestReceivers(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "authorization")
	if err := os.WriteFile(file, []byte("Bearer hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := receiver("https://r.example/events", ", authorization_file: "+file) +
		"\ngateway: {upstream: 'http://127.0.0.1:8008', security_events: {url: 'http://[::1]:9/', audience: g}}"
	cfg, err := parse([]byte(text), Options{File: "f.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	e, g := cfg.Homeservers[0].SecurityEvents, cfg.Gateway.SecurityEvents
	if !cfg.HasReceivers() || e.URL != "https://r.example/events" || e.Audience != "r" || string(e.Authorization) != "Bearer hunter2" {
		t.Errorf("got %+v", e)
	}
	if g.URL != "http://[::1]:9/" || g.Audience != "g" || g.Authorization != nil {
		t.Errorf("got %+v", g)
	}
	if shown := fmt.Sprintf("%v %+v %#v", e, *e, *e); strings.Contains(shown, "hunter2") {
		t.Errorf("shows a secret: %s", shown)
	}
	if Default().HasReceivers() {
		t.Error("there are receivers by default")
	}
}

func TestReceiverProblems(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"two": "Bearer hunter2\nX: hunter2\n", "nothing": "\n", "redacted": "REDACTED\n", "umlaut": "hunter2ü",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string) string {
		return receiver("https://r.example/", ", authorization_file: "+filepath.Join(dir, name))
	}
	const key = `homeservers[0].security_events.`
	for name, tt := range map[string]struct{ text, want string }{
		"no url":          {receiver("", ""), `homeservers[0].security_events: key "url" is missing`},
		"http":            {receiver("http://r.example/hunter2", ""), key + `url: want https and a host`},
		"user":            {receiver("https://u:hunter2@r.example/", ""), key + `url: want https and a host`},
		"fragment":        {receiver("https://r.example/#hunter2", ""), key + `url: want https and a host`},
		"no host":         {receiver("https:///hunter2", ""), key + `url: want https and a host`},
		"other scheme":    {receiver("ftp://127.0.0.1/", ""), key + `url: want https and a host`},
		"unknown key":     {receiver("https://r.example/", ", authorisation_file: a"), `security_events: key "authorisation_file" is unknown (did you mean authorization_file?)`},
		"header in there": {receiver("https://r.example/", ", authorization: hunter2"), `security_events: key "authorization" is unknown`},
		"no file":         {file("none"), key + `authorization_file: open `},
		"two lines":       {file("two"), key + `authorization_file: want one line`},
		"empty file":      {file("nothing"), key + `authorization_file: secret is empty`},
		"redacted":        {file("redacted"), key + `authorization_file: secret is REDACTED`},
		"not ASCII":       {file("umlaut"), key + `authorization_file: want one line`},
		"no audience": {strings.Replace(receiver("https://r.example/", ""), ", audience: r", "", 1),
			`homeservers[0].security_events: key "audience" is missing`},
		"no public url": {strings.TrimPrefix(receiver("https://r.example/", ""), "public_url: https://d.example\n"), `key "public_url" is missing`},
		"gateway": {"public_url: https://d.example\ngateway: {upstream: 'http://127.0.0.1:1', security_events: {audience: a}}",
			`f.yaml:2:60: gateway.security_events: key "url" is missing`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := parse([]byte(tt.text), Options{File: "f.yaml"})
			var problems yamlfile.Problems
			if !errors.As(err, &problems) || cfg != nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, %v; want %s", cfg, err, tt.want)
			}
			var shown strings.Builder
			if _, err := problems.WriteTo(&shown); err != nil || strings.Contains(shown.String(), "hunter2") {
				t.Errorf("repeats a secret: %s", &shown)
			}
		})
	}
}
