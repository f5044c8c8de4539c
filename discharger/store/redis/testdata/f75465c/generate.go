// Generate writes the files beside it. It is built in a checkout of commit
// f75465c and needs a redis-server of its own, empty, at a unix socket:
//
//	go run generate.go SOCKET DIRECTORY
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/store"
)

// session is one that was made, and whether it lives.
type session struct {
	Homeserver, User, Session string
	Mode                      string
	Caveat, Token             []byte
	Live                      bool
}

type world struct {
	ctx      context.Context
	service  *discharger.Service
	keys     caveat.KeyPair
	hs       map[string]caveat.KeyPair
	sessions []*session
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func seed(b byte) *bytes.Reader { return bytes.NewReader(bytes.Repeat([]byte{b}, 64)) }

func newWorld(st store.Store) *world {
	w := &world{ctx: context.Background(), keys: must(caveat.GenerateKey(seed(1))), hs: make(map[string]caveat.KeyPair)}
	var known []caveat.Homeserver
	for i, name := range []string{"hs.example.org", "gone.example.org"} {
		w.hs[name] = must(caveat.GenerateKey(seed(byte(2 + i))))
		known = append(known, caveat.Homeserver{Name: name, Key: w.hs[name].Public})
	}
	opener := must(caveat.NewOpener(caveat.OpenerConfig{Keys: []caveat.KeyPair{w.keys}, Homeservers: known}))
	w.service = must(discharger.New(discharger.Config{
		Opener: opener, Store: st, RefreshKeys: []discharger.RefreshKey{must(discharger.NewRefreshKey(seed(9)))},
	}))
	return w
}

func (w *world) login(homeserver, user string, mode caveat.Mode) *session {
	id := must(caveat.NewSessionID(nil))
	cond := caveat.Condition{Session: id, User: user, Device: "D" + id.String()[:4], Minted: time.Now().UnixMilli(), Mode: mode}
	sealed := must(caveat.Seal(caveat.SealParams{
		Version: caveat.V2, Homeserver: w.hs[homeserver], Discharger: w.keys.Public,
		RootKey: []byte("0123456789abcdef0123456789abcdef"), Condition: must(cond.Encode()),
	}))
	s := &session{Homeserver: homeserver, User: user, Session: id.String(), Mode: mode.String(), Caveat: sealed, Live: true}
	w.sessions = append(w.sessions, s)
	for range 3 {
		w.refresh(s)
	}
	return s
}

func (w *world) request(s *session) *discharger.Request {
	return &discharger.Request{ID: s.Caveat, RefreshToken: s.Token, Addr: netip.MustParseAddr("203.0.113.7"), Client: "test"}
}

func (w *world) refresh(s *session) {
	s.Token = must(w.service.Discharge(w.ctx, w.request(s))).RefreshToken
}

func id(s *session) (id caveat.SessionID) {
	check(id.UnmarshalText([]byte(s.Session)))
	return id
}

// run logs in, calls saved, and revokes in every way.
func (w *world) run(saved func()) []*session {
	const home, gone = "hs.example.org", "gone.example.org"
	w.login(home, "@alice:hs", caveat.ModeRotate)
	out := w.login(home, "@alice:hs", caveat.ModeRotate)
	w.login(home, "@carol:hs", caveat.ModeOpen)
	kept := w.login(home, "@bob:hs", caveat.ModeRotate)
	others := []*session{w.login(home, "@bob:hs", caveat.ModeRotate), w.login(home, "@bob:hs", caveat.ModeOpen)}
	dave := w.login(gone, "@dave:gone", caveat.ModeRotate)
	saved()
	check(w.service.Logout(w.ctx, w.request(out), discharger.ScopeSession))
	check(w.service.RevokeUser(w.ctx, store.UserKey{Homeserver: home, User: "@bob:hs"}, id(kept)))
	check(w.service.RevokeHomeserver(w.ctx, gone))
	for _, s := range append(others, out, dave) {
		s.Live = false
	}
	return w.sessions
}

// dump returns commands that make what is in a server.
func dump(ctx context.Context, c *redis.Client) string {
	var b strings.Builder
	line := func(args ...any) {
		for i, a := range args {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(strconv.Quote(fmt.Sprint(a)))
		}
		b.WriteByte('\n')
	}
	keys := must(c.Keys(ctx, "*").Result())
	slices.Sort(keys)
	for _, k := range keys {
		switch kind := must(c.Type(ctx, k).Result()); kind {
		case "string":
			line("set", k, must(c.Get(ctx, k).Result()))
		case "hash":
			for f, v := range must(c.HGetAll(ctx, k).Result()) {
				line("hset", k, f, v)
			}
		case "stream":
			for _, m := range must(c.XRange(ctx, k, "-", "+").Result()) {
				args := []any{"xadd", k, m.ID}
				for _, f := range []string{"u", "p", "e"} {
					if v, ok := m.Values[f]; ok {
						args = append(args, f, v)
					}
				}
				line(args...)
			}
		default:
			log.Fatalf("%s is a %s", k, kind)
		}
	}
	return b.String()
}

func main() {
	ctx, socket, dir := context.Background(), os.Args[1], os.Args[2]
	made := make(map[string]any)
	write := func(name, text string) { check(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)) }

	raw := redis.NewClient(&redis.Options{Addr: socket})
	journal := must(store.OpenJournal(store.JournalConfig{Path: filepath.Join(dir, "journal.db")}))
	r := must(store.OpenRedis(ctx, store.RedisConfig{
		Addrs: []string{socket}, TagKey: caveat.Secret("0123456789abcdef0123456789abcdef"), Journal: journal,
	}))
	w := newWorld(r)
	made["redis"] = w.run(func() { write("redis-before.txt", dump(ctx, raw)) })
	write("redis.txt", dump(ctx, raw))
	check(r.Close())
	check(journal.Close())

	b := must(store.OpenBolt(store.BoltConfig{Path: filepath.Join(dir, "sessions.db")}))
	made["bolt"] = newWorld(b).run(func() {})
	check(b.Close())

	made["made"] = time.Now().UnixMilli()
	write("sessions.json", string(must(json.MarshalIndent(made, "", "\t")))+"\n")
}
