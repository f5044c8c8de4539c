package rulefile_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/rulefile"
)

// TestParseInput reads an input as audit logs contain it, and as tests in rule files write
// it.
func TestParseInput(t *testing.T) {
	t.Parallel()
	in := policy.SampleInput()
	in.Session.Labels["a"] = "b"
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := rulefile.ParseInput("x.json", data)
	if err != nil || fmt.Sprintf("%+v", parsed) != fmt.Sprintf("%+v", in) {
		t.Errorf("parsed %+v, %v\nwant   %+v", parsed, err, in)
	}
	in.Session.Labels = nil
	if data, err = json.Marshal(in); err != nil {
		t.Fatal(err)
	}
	if _, err := rulefile.ParseInput("x.json", data); err != nil {
		t.Errorf("without labels: %v", err)
	}
	parsed, err = rulefile.ParseInput("x.yaml", []byte("policy: strict\nsession: {created: -90d}\nrequest:\n  ip: 192.0.2.7\n"))
	if err != nil || parsed.Policy != "strict" || parsed.Request.IP != "192.0.2.7" || parsed.Now.Sub(parsed.Session.Created).Hours() != 90*24 {
		t.Errorf("parsed %+v, %v", parsed, err)
	}
	for text, want := range map[string]string{
		"":                             "x.yaml: file is empty",
		"[]":                           "x.yaml:1:1: input: want a mapping, got a list",
		"request: {adress: x}":         `x.yaml:1:11: request: key "adress" is unknown`,
		"session: {epoch: many}":       "x.yaml:1:18: session.epoch: want a whole number",
		"grant: {ttl: 300}":            "got 300; write 300s for seconds",
		"request: {homeserver: maybe}": "request.homeserver: want true or false",
		"session: {created: long ago}": "session.created: want a time such as",
		"user: {id: &a x}":             "anchor &a is not allowed",
	} {
		t.Run(text, func(t *testing.T) {
			if _, err := rulefile.ParseInput("x.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %s", err, want)
			}
		})
	}
}

// FuzzParseInput parses arbitrary text as an input. An input that parses survives encoding
// and parsing.
func FuzzParseInput(f *testing.F) {
	sample, err := json.Marshal(policy.SampleInput())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(sample))
	f.Add("session: {created: -90d, labels: {role: admin}}\naction: activate\nnow: 2026-03-02T12:00:00+01:00\n")
	f.Add("grant: {ttl: 1d, revokes: true}\nuser: {sessions: -1}\n")
	f.Fuzz(func(t *testing.T, text string) {
		in, err := rulefile.ParseInput("x", []byte(text))
		if err != nil {
			if in != nil {
				t.Fatal("both an error and an input")
			}
			return
		}
		written, err := json.Marshal(in)
		if err != nil {
			t.Fatalf("%+v cannot be written: %v", in, err)
		}
		again, err := rulefile.ParseInput("x", written)
		if err != nil {
			t.Fatalf("%s cannot be read: %v", written, err)
		}
		if back, err := json.Marshal(again); err != nil || string(back) != string(written) {
			t.Fatalf("%s became %s", written, back)
		}
	})
}
