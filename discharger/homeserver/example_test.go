package homeserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/wire"
)

// A login, the two kinds of request that follow it, and what the homeserver
// says to each.
func Example() {
	ctx := context.Background()
	service := startService()
	defer service.Close()

	// The homeserver: its keys come from a file, the service's from the service.
	c, err := client.New(client.Config{URL: service.URL})
	if err != nil {
		log.Fatal(err)
	}
	discharger, err := c.Info(ctx)
	if err != nil {
		log.Fatal(err)
	}
	master, err := homeserver.NewKey(nil)
	if err != nil {
		log.Fatal(err)
	}
	hs, err := homeserver.New(homeserver.Config{
		Name:       "example.org",
		Keys:       homeserver.Keys{master},
		KeyPair:    service.homeserver,
		Discharger: discharger,
		Location:   service.URL,
	})
	if err != nil {
		log.Fatal(err)
	}

	// Alice logs in and gets an access macaroon. Alone it is worth nothing.
	minted, err := hs.Mint(homeserver.MintParams{User: "@alice:example.org", Device: "PHONE", Mode: caveat.ModeOpen})
	if err != nil {
		log.Fatal(err)
	}
	bare, err := minted.Text()
	if err != nil {
		log.Fatal(err)
	}
	from := homeserver.Request{ClientIP: netip.MustParseAddr("192.0.2.7")}
	_, err = hs.Verify(ctx, bare, from)
	fmt.Println(err, errors.Is(err, homeserver.ErrNotDischarged))

	// Her client has it discharged, and sends both.
	grant, err := c.Discharge(ctx, client.Request{Access: client.Access{Macaroon: minted.Macaroon}})
	if err != nil {
		log.Fatal(err)
	}
	bundle, err := grant.Bundle()
	if err != nil {
		log.Fatal(err)
	}
	who, err := hs.Verify(ctx, bundle, from)
	fmt.Println(who.User, who.Device, err)

	// Output:
	// not discharged true
	// @alice:example.org PHONE <nil>
}

// A holder can narrow a bundle before passing it on, and cannot widen it.
func ExampleHomeserver_Verify_narrowed() {
	ctx := context.Background()
	service := startService()
	defer service.Close()
	hs, access := login(service)

	lent := access.Clone()
	if err := lent.AddFirstPartyCaveat([]byte(rawmacaroon.ClientIP(netip.MustParsePrefix("192.0.2.0/24")))); err != nil {
		log.Fatal(err)
	}
	c, err := client.New(client.Config{URL: service.URL})
	if err != nil {
		log.Fatal(err)
	}
	grant, err := c.Discharge(ctx, client.Request{Access: client.Access{Macaroon: lent}})
	if err != nil {
		log.Fatal(err)
	}
	bundle, err := grant.Bundle()
	if err != nil {
		log.Fatal(err)
	}
	for _, ip := range []string{"192.0.2.7", "198.51.100.7"} {
		who, err := hs.Verify(ctx, bundle, homeserver.Request{ClientIP: netip.MustParseAddr(ip)})
		fmt.Printf("%q %v\n", who.User, err)
	}
	// Output:
	// "@alice:example.org" <nil>
	// "" access macaroon: caveat does not hold "client-ip 192.0.2.0/24"
}

// What is in a bundle can be seen without any key.
func ExampleInspect() {
	service := startService()
	defer service.Close()
	_, access := login(service)
	bundle, err := bundle.Encode(macaroon.Slice{access})
	if err != nil {
		log.Fatal(err)
	}
	in, err := homeserver.Inspect(bundle)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(in.User, in.Device, in.Mode, len(in.Access), len(in.Discharges))
	fmt.Println(strings.Contains(in.String(), "no discharge"))
	// Output:
	// @alice:example.org PHONE open 1 0
	// true
}

// login makes a homeserver of the service's and an access macaroon.
func login(service *service) (*homeserver.Homeserver, *macaroon.Macaroon) {
	master, err := homeserver.NewKey(nil)
	if err != nil {
		log.Fatal(err)
	}
	hs, err := homeserver.New(homeserver.Config{
		Keys:       homeserver.Keys{master},
		KeyPair:    service.homeserver,
		Discharger: service.opener.PublicKey(),
		Location:   service.URL,
	})
	if err != nil {
		log.Fatal(err)
	}
	minted, err := hs.Mint(homeserver.MintParams{User: "@alice:example.org", Device: "PHONE", Mode: caveat.ModeOpen})
	if err != nil {
		log.Fatal(err)
	}
	return hs, minted.Macaroon
}

// service stands in for the service in these examples: it discharges whatever a
// homeserver that it knows has sealed.
type service struct {
	*httptest.Server
	homeserver caveat.KeyPair
	opener     *caveat.Opener
}

func startService() *service {
	s := new(service)
	own, err := caveat.GenerateKey(nil)
	if err != nil {
		log.Fatal(err)
	}
	if s.homeserver, err = caveat.GenerateKey(nil); err != nil {
		log.Fatal(err)
	}
	s.opener, err = caveat.NewOpener(caveat.OpenerConfig{
		Keys:        []caveat.KeyPair{own},
		Homeservers: []caveat.Homeserver{{Name: "example.org", Key: s.homeserver.Public}},
	})
	if err != nil {
		log.Fatal(err)
	}
	s.Server = httptest.NewServer(s)
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", wire.ContentType)
	if r.URL.Path == wire.PathInfo {
		_ = json.NewEncoder(w).Encode(wire.InfoResponse{PublicKey: s.opener.PublicKey().String(), Version: 3})
		return
	}
	id, _ := wire.DecodeBase64(r.FormValue(wire.ParamID64))
	opened, err := s.opener.Open(id)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	const lifetime = 5 * time.Minute
	m, _ := macaroon.New(opened.RootKey, id, "", macaroon.V2)
	_ = m.AddFirstPartyCaveat([]byte(rawmacaroon.TimeBefore(time.Now().Add(lifetime))))
	data, _ := m.MarshalJSON()
	_ = json.NewEncoder(w).Encode(wire.DischargeResponse{Macaroon: data, ExpiresIn: lifetime.Milliseconds()})
}
