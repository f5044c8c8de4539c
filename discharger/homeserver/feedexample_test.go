package homeserver_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/sse"
)

// A homeserver that follows the feed, and its answers when a session was revoked or
// when the feed is out of date.
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

	client, err := client.New(client.Config{URL: service.URL, APIKey: secret.Bytes("from a file")})
	if err != nil {
		log.Fatal(err)
	}
	feed, err := homeserver.NewFeed(homeserver.FeedConfig{
		Client: client,
		OnEvent: func(r revocation.Event) {
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

	// Config.Revocations is the feed. Before serving, wait until it is current, or
	// for as long as the homeserver can wait.
	if err := feed.WaitCurrent(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("revoked:", feed.Revoked(homeserver.Identity{Session: session}))

	// Verify refuses the session from now on, and the middleware answers as the
	// revocation demands. A client that gets 503 keeps everything.
	for _, e := range []*homeserver.Error{
		{Kind: homeserver.ErrRevoked},
		{Kind: homeserver.ErrRevoked, Soft: true},
		{Kind: homeserver.ErrUndecided},
	} {
		fmt.Println(e.StatusCode(), e.Code(), "soft_logout:", e.SoftLogout())
	}
	cancel()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	// Output:
	// delete the device PHONE of @alice:a.example: logout
	// revoked: true
	// 401 M_UNKNOWN_TOKEN soft_logout: false
	// 401 M_UNKNOWN_TOKEN soft_logout: true
	// 503 M_UNKNOWN soft_logout: true
}
