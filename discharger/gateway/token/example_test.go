package token_test

import (
	"fmt"
	"log"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// A token for a script that reads one room, for a day, from one network.
func ExampleAttenuate() {
	text, err := os.ReadFile("testdata/token") // the access_token of a login without refresh_token
	if err != nil {
		log.Fatal(err)
	}
	narrow, err := token.Attenuate(strings.TrimSpace(string(text)),
		token.CondReadOnly,
		token.CondRoom+" !abc:example.org",
		rawmacaroon.TimeBefore(time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)),
		rawmacaroon.ClientIP(netip.MustParsePrefix("192.0.2.0/24")),
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.HasPrefix(narrow, token.PrefixHeld), len(narrow) > len(text))

	_, err = token.Attenuate(narrow, "moon-phase full")
	fmt.Println(err)
	// Output:
	// true true
	// attenuate with "moon-phase full": condition is unknown
}
