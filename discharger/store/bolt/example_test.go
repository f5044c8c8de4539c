package bolt_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/marker"
)

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	s, err := bolt.Open(bolt.Config{
		Path:   filepath.Join(dir, "sessions.db"),
		Marker: marker.FileMarker(filepath.Join(dir, "store-id")),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	ctx := context.Background()
	alice := store.UserKey{Homeserver: "example.org", User: "@alice:example.org"}
	session := caveat.SessionID{1}
	login := store.Write{User: alice, Changes: []store.Change{
		{Session: session, New: []byte("a session"), Expires: time.Now().Add(time.Hour)},
	}}
	for range 2 { // the outcome of the first one is unknown
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
