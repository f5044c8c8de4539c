package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/wire"
)

// A client keeps its login usable: bundles for the homeserver, a refresh token on
// disk, and a logout.
func ExampleSession() {
	ctx := context.Background()
	c, err := client.New(client.Config{URL: "https://discharger.example.org"})
	if err != nil {
		log.Fatal(err)
	}
	login, err := os.ReadFile("access") // the answer of the homeserver to the login
	if err != nil {
		log.Fatal(err)
	}
	access, err := client.ParseAccess(login)
	if err != nil {
		log.Fatal(err)
	}
	stored, _ := os.ReadFile("token") // empty before the first discharge
	session, err := c.NewSession(client.SessionConfig{
		Access: access, Token: client.RefreshToken(stored),
		Save: func(_ context.Context, token client.RefreshToken) error {
			return os.WriteFile("token", []byte(string(token)), 0o600)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	go session.Run(ctx) // refreshes ahead of time

	bundle, err := session.Bundle(ctx)
	var refused *client.RefusedError
	switch {
	case errors.As(err, &refused) && refused.Ended:
		log.Fatalf("log in again; keep encryption keys: %v", refused.SoftLogout)
	case err != nil:
		log.Fatalf("retry later: %v", err)
	}
	r, _ := http.NewRequest(http.MethodGet, "https://hs.example.org/whoami", nil)
	r.Header.Set("Authorization", "Bearer "+bundle)

	if err := session.Logout(ctx, wire.ScopeSession); err != nil {
		log.Fatal(err)
	}
}

// One refresh without a Session: a program that is started for each.
func ExampleClient_Discharge() {
	c, err := client.New(client.Config{URL: "https://discharger.example.org"})
	if err != nil {
		log.Fatal(err)
	}
	login, err := os.ReadFile("access")
	if err != nil {
		log.Fatal(err)
	}
	access, err := client.ParseAccess(login)
	if err != nil {
		log.Fatal(err)
	}
	stored, _ := os.ReadFile("token")
	grant, err := c.Discharge(context.Background(), client.Request{Access: access, Token: client.RefreshToken(stored)})
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("token", []byte(string(grant.Token)), 0o600); err != nil { // before the discharge is used
		log.Fatal(err)
	}
	bundle, err := grant.Bundle()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(bundle)
}

// A refresh token that works from one network only, and for a day.
func ExampleRefreshToken_Attenuate() {
	stored, err := os.ReadFile("token")
	if err != nil {
		log.Fatal(err)
	}
	token, err := client.ParseRefreshToken(string(stored))
	if err != nil {
		log.Fatal(err)
	}
	narrow, err := token.Attenuate(
		rawmacaroon.ClientIP(netip.MustParsePrefix("192.0.2.0/24")),
		rawmacaroon.TimeBefore(time.Now().Add(24*time.Hour)),
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(narrow))
}

// A homeserver lists the sessions of a user and revokes those of one device.
func ExampleClient_RevokeDevice() {
	ctx := context.Background()
	c, err := client.New(client.Config{
		URL: "https://discharger.example.org", APIKey: []byte(os.Getenv("DISCHARGER_API_KEY")),
	})
	if err != nil {
		log.Fatal(err)
	}
	sessions, err := c.Sessions(ctx, "@alice:example.org")
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range sessions {
		fmt.Println(s.Device, s.LastUsed, s.LastClient)
	}
	done, err := c.RevokeDevice(ctx, "@alice:example.org", "PHONE", wire.RevokeOptions{Soft: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(done.Ended, "sessions ended")
}

// A homeserver follows revocations, and reconnects where the connection ended.
// Package homeserver has a Feed that does this and remembers the revocations.
func ExampleClient_FollowRevocations() {
	ctx := context.Background()
	c, err := client.New(client.Config{
		URL: "https://discharger.example.org", APIKey: []byte(os.Getenv("DISCHARGER_API_KEY")),
	})
	if err != nil {
		log.Fatal(err)
	}
	position := ""
	for {
		err := c.FollowRevocations(ctx, position, func(e client.FeedEvent) error {
			switch e.Kind {
			case client.FeedRevocation:
				fmt.Println("refuse", e.Revocation.User, e.Revocation.Device, "until", e.Revocation.Until)
			case client.FeedGap:
				fmt.Println("events may be missing")
			}
			if e.Position != "" {
				position = e.Position
			}
			return nil
		})
		if !errors.Is(err, client.ErrUnavailable) {
			log.Fatal(err)
		}
		time.Sleep(time.Second)
	}
}
