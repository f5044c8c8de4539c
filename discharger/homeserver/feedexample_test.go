package homeserver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
)

// A homeserver that follows the feed, and what it answers when a session was
// revoked or when it has heard nothing for too long.
func ExampleFeed() {
	session := caveat.SessionID{1}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", api.ContentTypeEvents)
		fmt.Fprintf(w, "event: revocation\nid: 1\ndata: {\"v\":1,\"session\":%q,\"at\":1790000000000,\"until\":4102444800000,\"reason\":\"logout\"}\n\n", session)
		io.WriteString(w, "event: current\ndata: {\"heartbeat\":10000}\n\n")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer service.Close()

	client, err := api.New(api.Config{URL: service.URL, APIKey: caveat.Secret("from a file")})
	if err != nil {
		log.Fatal(err)
	}
	feed, err := homeserver.NewFeed(homeserver.FeedConfig{
		Client:  client,
		OnEvent: func(r api.Revocation) { fmt.Println("ended:", r.Reason) },
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

	// What Verify says is answered with:
	status := func(err error) int {
		switch {
		case err == nil:
			return http.StatusOK
		case errors.Is(err, homeserver.ErrUndecided):
			return http.StatusServiceUnavailable // it says nothing about the session
		}
		return http.StatusUnauthorized
	}
	fmt.Println(status(nil), status(&homeserver.Error{Kind: homeserver.ErrRevoked}), status(&homeserver.Error{Kind: homeserver.ErrUndecided}))
	cancel()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output:
	// ended: logout
	// revoked: true
	// 200 401 503
}
