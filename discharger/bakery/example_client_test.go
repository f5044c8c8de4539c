package bakery_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/httpbakery"

	sessions "github.com/discharger/discharger/discharger/bakery"
	"github.com/discharger/discharger/discharger/client"
)

// A program on the bakery that keeps a session of mode rotate: its own caveat is
// discharged with the refresh token, others as before.
func Example_client() {
	ctx := context.Background()
	data, err := os.ReadFile("access.json") // the answer to the login
	if err != nil {
		log.Fatal(err)
	}
	m := new(bakery.Macaroon)
	if err := json.Unmarshal(data, m); err != nil {
		log.Fatal(err)
	}
	access, err := sessions.Access(m)
	if err != nil {
		log.Fatal(err)
	}
	stored, _ := os.ReadFile("token") // empty before the first discharge
	c, err := client.New(client.Config{URL: "https://discharger.example.org"})
	if err != nil {
		log.Fatal(err)
	}
	session, err := c.NewSession(client.SessionConfig{
		Access: access, Token: client.RefreshToken(stored),
		Save: func(_ context.Context, token client.RefreshToken) error {
			return os.WriteFile("token", []byte(string(token)), 0o600)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	stock := httpbakery.NewClient()
	acquire := sessions.AcquireDischarge(session, stock.AcquireDischarge)

	held := bakery.Slice{m} // unbound, kept as long as the session
	held, err = held.Purge(time.Now()).DischargeAll(ctx, acquire, nil)
	if err != nil {
		log.Fatal(err)
	}
	text, err := json.Marshal(held.Bind())
	if err != nil {
		log.Fatal(err)
	}
	r, _ := http.NewRequest(http.MethodGet, "https://service.example.org/whoami", nil)
	r.Header.Set(httpbakery.MacaroonsHeader, base64.StdEncoding.EncodeToString(text))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		log.Fatal(err)
	}
	log.Print(resp.Status)
}
