// Command fosite is what bench compares refreshes with: the refresh_token grant
// of the library fosite, on the store in memory that comes with it, both as they
// come. It is a module of its own, so that nobody who builds the service builds
// what this needs.
//
//	POST /login   client_id=bench: begins a session, without asking for anything
//	POST /token   the token endpoint of OAuth 2.0, with nothing but this grant
//
// Both answer with a refresh_token. The client is a public one, so that no
// password is hashed. The store keeps the refresh tokens that were used, as it
// has to in order to know them again, and drops none of them ever.
//
// It is run like the other references: where it listens it says as JSON on its
// standard output, and it ends when its standard input does.
package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/storage"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("fosite: ")
	if err := run(os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run serves until there is no more input.
func run(in io.Reader, out io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	srv := &http.Server{Handler: newServer().routes(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	if err := json.NewEncoder(out).Encode(map[string]string{"addr": l.Addr().String()}); err != nil {
		return fmt.Errorf("say where it listens: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in) // however it ends, it has ended
		close(ended)
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ended:
		return srv.Close()
	}
}

// server is the grant with what it needs.
type server struct {
	provider fosite.OAuth2Provider
	strategy *oauth2.HMACSHAStrategy
	store    *storage.MemoryStore
	client   fosite.Client
}

func newServer() *server {
	s := &server{store: storage.NewMemoryStore()}
	s.client = &fosite.DefaultClient{ID: "bench", Public: true, GrantTypes: []string{"refresh_token"}, Scopes: []string{"offline"}}
	s.store.Clients[s.client.GetID()] = s.client
	config := &fosite.Config{GlobalSecret: make([]byte, 32)}
	rand.Read(config.GlobalSecret)
	s.strategy = compose.NewOAuth2HMACStrategy(config)
	s.provider = compose.Compose(config, s.store, s.strategy, compose.OAuth2RefreshTokenGrantFactory)
	return s
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", s.token)
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("GET /reference/memory", memory)
	return mux
}

// token is the token endpoint, as the library's documentation has it.
func (s *server) token(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	request, err := s.provider.NewAccessRequest(ctx, r, new(fosite.DefaultSession))
	if err != nil {
		s.provider.WriteAccessError(ctx, w, request, err)
		return
	}
	response, err := s.provider.NewAccessResponse(ctx, request)
	if err != nil {
		s.provider.WriteAccessError(ctx, w, request, err)
		return
	}
	s.provider.WriteAccessResponse(ctx, w, request, response)
}

// login begins a session, as a grant does that asks a user.
func (s *server) login(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	request := fosite.NewRequest()
	request.Client = s.client
	request.Session = &fosite.DefaultSession{Subject: "@alice:example.org"}
	request.GrantScope("offline")
	token, signature, err := s.strategy.GenerateRefreshToken(ctx, request)
	if err == nil {
		err = s.store.CreateRefreshTokenSession(ctx, signature, "", request)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, map[string]string{"refresh_token": token})
}

// memory says what the process has allocated since it started.
func memory(w http.ResponseWriter, _ *http.Request) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	answer(w, map[string]uint64{"mallocs": m.Mallocs, "bytes": m.TotalAlloc})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // whoever does not read it measures nothing
}
