package homeserver_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// A login, and the verification of a request: the homeserver loads its keys from a
// file, mints an access macaroon, and verifies the bundle that the client sends.
func Example() {
	ctx := context.Background()
	path, discharge := keysAndDischarger()
	defer os.Remove(path)

	// At start: the key file comes from "discharger keys new --kind homeserver".
	cfg, err := homeserver.ConfigFromFile(path, keyfile.OwnerOnly)
	if err != nil {
		log.Fatal(err)
	}
	hs, err := homeserver.New(cfg)
	if err != nil {
		log.Fatal(err)
	}

	// At login: the access macaroon is the client's. Alone it grants nothing.
	minted, err := hs.Mint(homeserver.MintParams{User: "@alice:example.org", Device: "PHONE", Mode: caveat.ModeOpen})
	if err != nil {
		log.Fatal(err)
	}
	access, err := minted.Text()
	if err != nil {
		log.Fatal(err)
	}
	from := homeserver.Request{ClientIP: netip.MustParseAddr("192.0.2.7")}
	_, err = hs.Verify(ctx, access, from)
	fmt.Println(err, errors.Is(err, homeserver.ErrNotDischarged))

	// The client has it discharged, with package client in Go, and sends both.
	who, err := hs.Verify(ctx, discharge(minted.Macaroon), from)
	fmt.Println(who.User, who.Device, err)

	// Output:
	// not discharged true
	// @alice:example.org PHONE <nil>
}

// A holder can narrow a bundle before passing it on, and cannot widen it.
func ExampleHomeserver_Verify_narrowed() {
	ctx := context.Background()
	path, discharge := keysAndDischarger()
	defer os.Remove(path)
	cfg, err := homeserver.ConfigFromFile(path, keyfile.OwnerOnly)
	if err != nil {
		log.Fatal(err)
	}
	hs, err := homeserver.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	minted, err := hs.Mint(homeserver.MintParams{User: "@alice:example.org", Device: "PHONE", Mode: caveat.ModeOpen})
	if err != nil {
		log.Fatal(err)
	}

	lent := minted.Macaroon.Clone()
	if err := lent.AddFirstPartyCaveat([]byte(rawmacaroon.ClientIP(netip.MustParsePrefix("192.0.2.0/24")))); err != nil {
		log.Fatal(err)
	}
	text := discharge(lent)
	for _, ip := range []string{"192.0.2.7", "198.51.100.7"} {
		who, err := hs.Verify(ctx, text, homeserver.Request{ClientIP: netip.MustParseAddr(ip)})
		fmt.Printf("%q %v\n", who.User, err)
	}
	// Output:
	// "@alice:example.org" <nil>
	// "" access macaroon: caveat does not hold "client-ip 192.0.2.0/24"
}

// The content of a bundle is readable without a key.
func ExampleInspect() {
	path, discharge := keysAndDischarger()
	defer os.Remove(path)
	cfg, err := homeserver.ConfigFromFile(path, keyfile.OwnerOnly)
	if err != nil {
		log.Fatal(err)
	}
	hs, err := homeserver.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	minted, err := hs.Mint(homeserver.MintParams{User: "@alice:example.org", Device: "PHONE", Mode: caveat.ModeOpen})
	if err != nil {
		log.Fatal(err)
	}
	in, err := homeserver.Inspect(discharge(minted.Macaroon))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(in.User, in.Device, in.Mode, len(in.Access), len(in.Discharges))
	// Output:
	// @alice:example.org PHONE open 1 1
}

// keysAndDischarger replaces a setup: it writes a key file, and returns a function
// that discharges an access macaroon as the discharger and its client would, and
// returns the bundle.
func keysAndDischarger() (keys string, discharge func(*macaroon.Macaroon) string) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	own := caveat.GenerateKey()
	ring, err := keyfile.NewHomeserver(keyfile.Peer{
		Name: "example.org", Service: "https://discharger.example.org", ServiceKey: own.Public,
	}, time.Now())
	if err != nil {
		log.Fatal(err)
	}
	keys = filepath.Join(dir, "homeserver.json")
	if err := keyfile.Create(keys, ring); err != nil {
		log.Fatal(err)
	}
	opener, err := caveat.NewOpener(caveat.OpenerConfig{
		Keys:        []caveat.KeyPair{own},
		Homeservers: []caveat.Homeserver{{Name: "example.org", Key: ring.Of(keyfile.Seal)[0].Public}},
	})
	if err != nil {
		log.Fatal(err)
	}
	return keys, func(access *macaroon.Macaroon) string {
		id := access.Caveats()[0].Id
		opened, err := opener.Open(id)
		if err != nil {
			log.Fatal(err)
		}
		d, err := macaroon.New(opened.RootKey, id, "", macaroon.V2)
		if err != nil {
			log.Fatal(err)
		}
		if err := d.AddFirstPartyCaveat([]byte(rawmacaroon.TimeBefore(time.Now().Add(5 * time.Minute)))); err != nil {
			log.Fatal(err)
		}
		d.Bind(access.Signature())
		text, err := bundle.Encode(macaroon.Slice{access, d})
		if err != nil {
			log.Fatal(err)
		}
		return text
	}
}
