package client

import (
	"net/http"
	"testing"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
)

// StandIn gives the examples a service with one session on it: the
// client's configuration and the access macaroon, as text.
func StandIn() (Config, string) {
	t := new(testing.T)
	svc := newService(t)
	text, err := bundle.Encode(macaroon.Slice{svc.mint(t, caveat.V2).Macaroon})
	if err != nil {
		panic(err)
	}
	return Config{URL: testLocation, HTTPClient: &http.Client{Transport: svc}}, text
}
