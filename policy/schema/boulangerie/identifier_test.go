package boulangerie

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/policy/schema"
)

func TestParseIdentifier(t *testing.T) {
	t.Parallel()
	const good = "v:0 uuid:6c9f2a52-0d3c-4f0f-8a0e-1d3b2d6e5a10 kid:key1 sch:ee6da70e5ba01fec@3 iat:2016-01-10T00:00:00Z"
	want := Identifier{
		UUID: "6c9f2a52-0d3c-4f0f-8a0e-1d3b2d6e5a10", KeyID: "key1", SchemaID: "ee6da70e5ba01fec", Version: 3,
		IssuedAt: time.Date(2016, 1, 10, 0, 0, 0, 0, time.UTC),
	}
	replace := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	accepted := map[string]func(*Identifier){
		good:                                            func(*Identifier) {},
		"  " + good + " ":                               func(*Identifier) {},
		strings.ReplaceAll(good, " ", "  \t"):           func(*Identifier) {},
		replace("v:0", "v:00"):                          func(*Identifier) {},
		replace("v:0", "v:-0"):                          func(*Identifier) {},
		replace("kid:key1", "kid:"):                     func(id *Identifier) { id.KeyID = "" },
		replace("kid:key1", "kid:a:b"):                  func(id *Identifier) { id.KeyID = "a:b" },
		replace("ee6da70e5ba01fec", "zzzzzzzzzzzzzzzz"): func(id *Identifier) { id.SchemaID = "zzzzzzzzzzzzzzzz" },
		replace("@3", "@99"):                            func(id *Identifier) { id.Version = 99 },
		replace("@3", "@99999999999999999999"):          func(id *Identifier) { id.Version = 1<<63 - 1 },
	}
	for text, change := range accepted {
		expected := want
		change(&expected)
		if got, err := ParseIdentifier(text); err != nil || got != expected {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
	}
	refused := map[string]string{
		"":                      "identifier: malformed: missing 'v'",
		"v:0":                   "identifier: malformed: missing 'uuid'",
		replace("uuid:", "id:"): "identifier: malformed: missing 'uuid'",
		good + " x:y":           "identifier: malformed: unexpected field after 'iat'",
		replace("v:0", "v:1"):   "identifier: malformed: bad version",
		replace("v:0", "v:x"):   "identifier: malformed: bad version",
		replace("ee6da70e5ba01fec", "EE6DA70E5BA01FEC"): "identifier: malformed: bad schema identifier",
		replace("@3", "@x"):                             "identifier: malformed: bad schema identifier",
		replace("@3", ""):                               "identifier: malformed: bad schema identifier",
		replace("2016-01-10T", "2016-01-10 "):           "identifier: malformed: unexpected field after 'iat'",
		replace("00:00:00Z", "noon"):                    "identifier: malformed: bad time",
		strings.Repeat("a", schema.MaxCondition+1):      "identifier: malformed: is 65536 bytes long, at most 65535",
	}
	for text, want := range refused {
		got, err := ParseIdentifier(text)
		if err == nil || err.Error() != want || !errors.Is(err, schema.ErrMalformed) || got != (Identifier{}) {
			t.Errorf("%.99q: got %+v, %v, want %s", text, got, err, want)
		}
	}
}
