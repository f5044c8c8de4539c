package caveat_test

import (
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// A homeserver seals the session into a caveat id, and the discharger opens
// it. A caveat of an unregistered homeserver is refused.
func Example() {
	discharger := caveat.GenerateKey()
	homeserver := caveat.GenerateKey()

	// At the homeserver, at login.
	session := caveat.NewSessionID()
	condition, err := caveat.Condition{
		Session: session,
		User:    "@alice:example.org",
		Device:  "PHONE",
		Minted:  time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMilli(),
		Mode:    caveat.ModeRotate,
	}.Encode()
	if err != nil {
		log.Fatal(err)
	}
	sealer, err := caveat.NewSealer(caveat.SealerConfig{
		Version:    caveat.V2,
		Homeserver: homeserver,
		Discharger: discharger.Public,
	})
	if err != nil {
		log.Fatal(err)
	}
	id, err := sealer.Seal([]byte("the root key of this caveat"), condition)
	if err != nil {
		log.Fatal(err)
	}

	// At the discharger, at every refresh.
	opener, err := caveat.NewOpener(caveat.OpenerConfig{
		Keys:        []caveat.KeyPair{discharger},
		Homeservers: []caveat.Homeserver{{Name: "example.org", Key: homeserver.Public}},
	})
	if err != nil {
		log.Fatal(err)
	}
	opened, err := opener.Open(id)
	if err != nil {
		log.Fatal(err)
	}
	c, err := caveat.ParseCondition(opened.Condition)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(opened.Homeserver, c.User, c.Device, c.Mode)
	fmt.Println(opened.RootKey)

	_, err = opener.Open(append([]byte{id[0] + 1}, id[1:]...))
	fmt.Println(errors.Is(err, caveat.ErrMalformed))

	// Output:
	// example.org @alice:example.org PHONE rotate
	// REDACTED
	// true
}
