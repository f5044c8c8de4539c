package gateway_test

import (
	"fmt"
	"log"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/gateway"
	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// A token that a script can read one room with, for a day, from one network.
func ExampleAttenuate() {
	token, err := os.ReadFile("testdata/token") // as a login without refresh_token gave it out
	if err != nil {
		log.Fatal(err)
	}
	narrow, err := gateway.Attenuate(strings.TrimSpace(string(token)),
		gateway.CondReadOnly,
		gateway.CondRoom+" !abc:example.org",
		rawmacaroon.TimeBefore(time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)),
		rawmacaroon.ClientIP(netip.MustParsePrefix("192.0.2.0/24")),
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.HasPrefix(narrow, gateway.PrefixHeld), len(narrow) > len(token))

	_, err = gateway.Attenuate(narrow, "moon-phase full")
	fmt.Println(err)
	// Output:
	// true true
	// attenuate with "moon-phase full": no gateway knows such a condition
}
