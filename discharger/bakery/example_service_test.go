package bakery_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/httpbakery"

	sessions "github.com/discharger/discharger/discharger/bakery"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
)

// A service on bakery.Checker and httpbakery that adopts sessions: it mints at login,
// verifies offline, and refuses revoked sessions at once.
func Example_service() {
	config, err := homeserver.ConfigFromFile("homeserver.json", keyfile.OwnerOnly)
	if err != nil {
		log.Fatal(err)
	}
	c, err := client.New(client.Config{URL: config.Location, APIKey: []byte(os.Getenv("DISCHARGER_API_KEY"))})
	if err != nil {
		log.Fatal(err)
	}
	oven, err := sessions.New(sessions.Config{Homeserver: config, Feed: homeserver.FeedConfig{Client: c}})
	if err != nil {
		log.Fatal(err)
	}
	go oven.Run(context.Background())
	checker := bakery.NewChecker(bakery.CheckerParams{Checker: sessions.NewChecker(), MacaroonVerifier: oven})

	http.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		user := r.FormValue("user") // after checking the password
		m, err := oven.NewMacaroon(homeserver.MintParams{User: user, Mode: caveat.ModeOpen})
		if err != nil {
			http.Error(w, "login failed", http.StatusInternalServerError)
			return
		}
		httpbakery.WriteError(r.Context(), w, httpbakery.NewDischargeRequiredError(httpbakery.DischargeRequiredErrorParams{
			Macaroon: m, CookiePath: "/",
		}))
	})
	http.HandleFunc("GET /whoami", func(w http.ResponseWriter, r *http.Request) {
		ctx := oven.Context(r)
		info, err := checker.Auth(sessions.RequestMacaroons(r)...).Allow(ctx, sessions.SessionOp)
		if err != nil {
			sessions.WriteError(ctx, w, err)
			return
		}
		identity, err := oven.Identity(ctx, info)
		if err != nil {
			sessions.WriteError(ctx, w, err)
			return
		}
		fmt.Fprintln(w, identity.User)
	})
	log.Fatal(http.ListenAndServe("localhost:8080", nil))
}
