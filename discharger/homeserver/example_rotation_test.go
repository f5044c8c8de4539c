package homeserver_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
)

// The rotation of the master key. The commands "discharger keys new --staged",
// "keys use" and "keys retire" do the same to the file; the homeserver reloads it
// after each step.
func ExampleHomeserver_Reload() {
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
	old := discharge(minted.Macaroon)

	step := func(name string, change func(*keyfile.Ring) error) {
		if err := keyfile.Update(path, keyfile.OwnerOnly, change); err != nil {
			log.Fatal(err)
		}
		cfg, err := homeserver.ConfigFromFile(path, keyfile.OwnerOnly)
		if err != nil {
			log.Fatal(err)
		}
		if err := hs.Reload(cfg); err != nil { // the previous keys stay
			log.Fatal(err)
		}
		_, err = hs.Verify(context.Background(), old, homeserver.Request{})
		fmt.Printf("%s: %d keys, bundle of the first: %v\n", name, len(cfg.Keys), err)
	}
	var first, second keyfile.Key
	step("stage", func(r *keyfile.Ring) (err error) { // all processes learn the key before one mints with it
		first = r.Of(keyfile.Root)[0]
		second, err = r.Stage(keyfile.Root, time.Now())
		return err
	})
	step("use", func(r *keyfile.Ring) error { _, err := r.Use(second.ID, time.Now()); return err })
	step("retire", func(r *keyfile.Ring) error { _, err := r.Retire(first.ID); return err }) // ends sessions of the first key
	// Output:
	// stage: 2 keys, bundle of the first: <nil>
	// use: 2 keys, bundle of the first: <nil>
	// retire: 1 keys, bundle of the first: access macaroon: minted with a retired key
}
