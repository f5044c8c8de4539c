package homeserver_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/policy/schema"
)

// Conditions of the homeserver's own, written down as a schema: here a token can be
// narrowed to one room.
func ExampleConfig_check() {
	const rooms = `
format: 1
id: rooms
context:
  room: {type: string, doc: The room that the request is about.}
versions:
  v1:
    room: {type: string, check: value == room}
`
	parsed, err := schema.Load("rooms.yaml", []byte(rooms))
	if err != nil {
		log.Fatal(err)
	}
	checker, err := schema.New(schema.Config{Schema: parsed})
	if err != nil {
		log.Fatal(err)
	}
	check := func(ctx context.Context, c homeserver.Caveat) error {
		err := checker.CheckOne(ctx, c.Condition, schema.Request{
			Now: time.Now(), IP: c.Request.ClientIP, Values: map[string]any{"room": c.Request.HTTP.FormValue("room")},
		})
		switch {
		case errors.Is(err, schema.ErrUnknown):
			return homeserver.ErrUnknownCaveat
		case errors.Is(err, schema.ErrUndecided):
			return homeserver.ErrUndecided
		}
		return err
	}

	path, discharge := keysAndDischarger()
	defer os.Remove(path)
	cfg, err := homeserver.ConfigFromFile(path, keyfile.OwnerOnly)
	if err != nil {
		log.Fatal(err)
	}
	cfg.Check = check
	hs, err := homeserver.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	minted, err := hs.Mint(homeserver.MintParams{User: "@alice:example.org", Device: "PHONE", Mode: caveat.ModeOpen})
	if err != nil {
		log.Fatal(err)
	}

	for _, condition := range []string{"room !lobby:example.org", "weather sunny"} {
		narrow := minted.Macaroon.Clone()
		if err := narrow.AddFirstPartyCaveat([]byte(condition)); err != nil {
			log.Fatal(err)
		}
		text := discharge(narrow)
		for _, room := range []string{"!lobby:example.org", "!vault:example.org"} {
			r := httptest.NewRequest(http.MethodGet, "/messages?room="+room, nil) // Middleware sets HTTP
			_, err := hs.Verify(context.Background(), text, homeserver.Request{ClientIP: netip.MustParseAddr("192.0.2.7"), HTTP: r})
			var e *homeserver.Error
			errors.As(err, &e)
			if e == nil {
				fmt.Println(condition, room, "allowed")
			} else {
				fmt.Println(condition, room, e.StatusCode(), e.Code())
			}
		}
	}
	// Output:
	// room !lobby:example.org !lobby:example.org allowed
	// room !lobby:example.org !vault:example.org 403 M_FORBIDDEN
	// weather sunny !lobby:example.org 401 M_UNKNOWN_TOKEN
	// weather sunny !vault:example.org 401 M_UNKNOWN_TOKEN
}
