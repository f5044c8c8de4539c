package store_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

func ExampleOpenBolt() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	s, err := store.OpenBolt(store.BoltConfig{
		Path:   filepath.Join(dir, "sessions.db"),
		Marker: store.FileMarker(filepath.Join(dir, "store-id")),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	ctx := context.Background()
	alice := discharger.UserKey{Homeserver: "example.org", User: "@alice:example.org"}
	session := caveat.SessionID{1}
	login := discharger.Write{User: alice, Changes: []discharger.Change{
		{Session: session, New: []byte("a session"), Expires: time.Now().Add(time.Hour)},
	}}
	for range 2 { // nobody knows whether the first one arrived
		done, err := s.Swap(ctx, login)
		fmt.Println(done, err)
	}
	view, err := s.Load(ctx, alice, session, revocation.DeviceTag{})
	fmt.Printf("%s %v\n", view.Session, err)

	// Output:
	// true <nil>
	// true <nil>
	// a session <nil>
}

func ExampleOpenRedis() {
	password, err := os.ReadFile("/run/secrets/redis")
	if err != nil {
		log.Fatal(err)
	}
	tagKey, err := os.ReadFile("/run/secrets/redis-tag-key")
	if err != nil {
		log.Fatal(err)
	}
	s, err := store.OpenRedis(context.Background(), store.RedisConfig{
		Addrs:       []string{"sentinel-1:26379", "sentinel-2:26379", "sentinel-3:26379"},
		MasterName:  "sessions",
		RedisAccess: store.RedisAccess{Username: "discharger", Password: password},
		TagKey:      tagKey,
		Durability:  store.DurabilityReplica,
		Marker:      store.FileMarker("/var/lib/discharger/store-id"),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
}
