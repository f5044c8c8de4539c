package homeserver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/sse"
	"github.com/discharger/discharger/discharger/wire"
)

// A homeserver that follows the feed, and what it answers when a session was
// revoked or when it has heard nothing for too long.
func ExampleFeed() {
	session := caveat.SessionID{1}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", sse.ContentType)
		fmt.Fprintf(w, "event: revocation\nid: 1\ndata: {\"v\":1,\"session\":%q,\"user\":\"@alice:a.example\",\"device\":\"PHONE\",\"kind\":\"hard\",\"at\":1790000000000,\"until\":4102444800000,\"reason\":\"logout\"}\n\n", session)
		io.WriteString(w, "event: current\ndata: {\"heartbeat\":10000}\n\n")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer service.Close()

	client, err := client.New(client.Config{URL: service.URL, APIKey: caveat.Secret("from a file")})
	if err != nil {
		log.Fatal(err)
	}
	feed, err := homeserver.NewFeed(homeserver.FeedConfig{
		Client: client,
		OnEvent: func(r wire.Revocation) {
			if r.Device != "" && !r.Soft { // unless another session has it
				fmt.Println("delete the device", r.Device, "of", r.User+":", r.Reason)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- feed.Run(ctx) }() // for as long as the homeserver runs

	// Config.Revocations is the feed. Before serving, wait until it is up to
	// date, or for as long as the homeserver can wait.
	if err := feed.WaitCurrent(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("revoked:", feed.Revoked(homeserver.Identity{Session: session}))

	// The answer to an error of Verify. In all others than these, the session may
	// live: the client gets another discharge, and keeps its keys.
	answer := func(err error) (status int, softLogout bool) {
		var e *homeserver.Error
		switch {
		case err == nil:
			return http.StatusOK, false
		case errors.As(err, &e) && e.Undecided():
			return http.StatusServiceUnavailable, false // nothing is known about the session
		case errors.As(err, &e) && e.Kind == homeserver.ErrRevoked:
			return http.StatusUnauthorized, e.SoftLogout
		}
		return http.StatusUnauthorized, true
	}
	fmt.Println(answer(nil))
	fmt.Println(answer(&homeserver.Error{Kind: homeserver.ErrRevoked}))
	fmt.Println(answer(&homeserver.Error{Kind: homeserver.ErrExpired}))
	fmt.Println(answer(&homeserver.Error{Kind: homeserver.ErrUndecided}))
	cancel()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output:
	// delete the device PHONE of @alice:a.example: logout
	// revoked: true
	// 200 false
	// 401 false
	// 401 true
	// 503 false
}
