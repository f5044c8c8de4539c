package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/wire"
)

// A client keeps its login usable: bundles for the homeserver, a refresh token
// on disk, and a logout.
func ExampleSession() {
	ctx := context.Background()
	config, login := client.StandIn() // in earnest: Config{URL: …}, and what the homeserver answered to the login
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "token")

	c, err := client.New(config)
	if err != nil {
		log.Fatal(err)
	}
	access, err := client.ParseAccess([]byte(login))
	if err != nil {
		log.Fatal(err)
	}
	session, err := c.NewSession(client.SessionConfig{
		Access: access,
		Token:  "", // after a restart: what is in the file
		Save: func(_ context.Context, token client.RefreshToken) error {
			return os.WriteFile(file, []byte(string(token)), 0o600)
		},
	})
	if err != nil {
		log.Fatal(err)
	}

	text, err := session.Bundle(ctx) // for the Authorization header of a request
	if err != nil {
		log.Fatal(err)
	}
	decoded, err := bundle.Parse(text)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(decoded.Discharges), "discharge, compact:", decoded.Compact)
	stored, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.ParseRefreshToken(string(stored))
	fmt.Println("a token is on disk:", err == nil)

	if err := session.Logout(ctx, wire.ScopeSession); err != nil {
		log.Fatal(err)
	}
	_, err = session.Bundle(ctx)
	var refused *client.RefusedError
	fmt.Println(errors.As(err, &refused) && refused.Ended, refused.Reason)
	// Output:
	// 1 discharge, compact: true
	// a token is on disk: true
	// true session_ended
}

// One discharge, without a session around it.
func ExampleClient_Discharge() {
	config, login := client.StandIn()
	service, err := client.New(config)
	if err != nil {
		log.Fatal(err)
	}
	access, err := client.ParseAccess([]byte(login))
	if err != nil {
		log.Fatal(err)
	}
	grant, err := service.Discharge(context.Background(), client.Request{Access: access})
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range grant.Discharge.Caveats()[1:] {
		fmt.Println(string(c.Id))
	}
	fmt.Println(grant.Token)
	// Output:
	// declared epoch 1
	// REDACTED
}

// A refresh token that works from one network only, and only for a day.
func ExampleRefreshToken_Attenuate() {
	token := storedToken()
	narrow, err := token.Attenuate(
		rawmacaroon.ClientIP(netip.MustParsePrefix("192.0.2.0/24")),
		rawmacaroon.TimeBefore(time.Now().Add(24*time.Hour)),
	)
	fmt.Println(len(narrow) > len(token), err)
	// Output:
	// true <nil>
}

// storedToken is a refresh token as a client has it on disk.
func storedToken() (token client.RefreshToken) {
	config, login := client.StandIn()
	c, _ := client.New(config)
	access, _ := client.ParseAccess([]byte(login))
	session, _ := c.NewSession(client.SessionConfig{Access: access, Save: func(_ context.Context, t client.RefreshToken) error {
		token = t
		return nil
	}})
	if err := session.Refresh(context.Background()); err != nil {
		log.Fatal(err)
	}
	return token
}
