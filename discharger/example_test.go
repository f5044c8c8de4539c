package discharger_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/policy"
)

// A program embeds the service with a policy in Go: the user on call gets discharges
// for an hour, other users for a minute.
func Example() {
	dir, err := os.MkdirTemp("", "discharger")
	must(err)
	defer os.RemoveAll(dir)
	sessions, err := bolt.Open(bolt.Config{Path: filepath.Join(dir, "sessions.db")})
	must(err)
	defer sessions.Close()
	ours, theirs := caveat.GenerateKey(), caveat.GenerateKey() // of the service, of the homeserver
	opener, err := caveat.NewOpener(caveat.OpenerConfig{
		Keys: []caveat.KeyPair{ours}, Homeservers: []caveat.Homeserver{{Name: "example.org", Key: theirs.Public}},
	})
	must(err)
	refresh, err := discharger.NewRefreshKey(nil)
	must(err)
	onCall := policy.EvaluatorFunc(func(_ context.Context, in *policy.Input) (policy.Decision, error) {
		if in.User.ID == "@alice:example.org" {
			return policy.Decision{Effect: policy.EffectAllow, TTL: time.Hour, Rule: "on-call"}, nil
		}
		return policy.Decision{Effect: policy.EffectAllow, TTL: time.Minute, Rule: "others"}, nil
	})
	service, err := discharger.New(discharger.Config{
		Opener: opener, Store: sessions, RefreshKeys: []discharger.RefreshKey{refresh}, Policy: onCall,
	})
	must(err)
	for _, user := range []string{"@alice:example.org", "@bob:example.org"} {
		grant, err := service.Discharge(context.Background(), &discharger.Request{CaveatID: sealed(user, theirs, ours.Public)})
		must(err)
		fmt.Println(user, grant.ExpiresIn.Round(time.Second))
	}
	// Output:
	// @alice:example.org 1h0m0s
	// @bob:example.org 1m0s
}

// sealed returns the caveat that a homeserver makes at a login. Package homeserver
// makes it, together with the access macaroon.
func sealed(user string, homeserver caveat.KeyPair, service caveat.PublicKey) []byte {
	id := caveat.NewSessionID()
	c := caveat.Condition{Session: id, User: user, Minted: time.Now().UnixMilli(), Mode: caveat.ModeOpen}
	text, err := c.Encode()
	must(err)
	key := make([]byte, 32)
	_, err = rand.Read(key)
	must(err)
	box, err := caveat.Seal(caveat.SealParams{
		Version: caveat.V2, Homeserver: homeserver, Discharger: service, RootKey: key, Condition: text,
	})
	must(err)
	return box
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
