package homeserver_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
)

// A homeserver on net/http: a login that mints, and a route behind the middleware.
func ExampleMiddleware() {
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

	authenticated := homeserver.Middleware(hs, homeserver.MiddlewareOptions{})
	mux := http.NewServeMux()
	mux.Handle("GET /_matrix/client/v3/account/whoami", authenticated(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _ := homeserver.IdentityFrom(r.Context())
		fmt.Fprintf(w, `{"user_id":%q,"device_id":%q}`+"\n", id.User, id.Device)
	})))
	server := httptest.NewServer(mux)
	defer server.Close()

	// A client with and without a bundle.
	minted, err := hs.Mint(homeserver.MintParams{User: "@alice:example.org", Device: "PHONE", Mode: caveat.ModeOpen})
	if err != nil {
		log.Fatal(err)
	}
	access, err := minted.Text()
	if err != nil {
		log.Fatal(err)
	}
	for _, token := range []string{"", access, discharge(minted.Macaroon)} {
		r, err := http.NewRequest(http.MethodGet, server.URL+"/_matrix/client/v3/account/whoami", nil)
		if err != nil {
			log.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			log.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Printf("%d %s", resp.StatusCode, body)
	}
	// Output:
	// 401 {"errcode":"M_MISSING_TOKEN","error":"Access token: request has no token.","soft_logout":true}
	// 401 {"errcode":"M_UNKNOWN_TOKEN","error":"Access token: not discharged.","soft_logout":true}
	// 200 {"user_id":"@alice:example.org","device_id":"PHONE"}
}
