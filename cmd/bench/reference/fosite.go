package reference

import (
	"crypto/rand"
	"encoding/json"
	"net/http"

	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/storage"
)

// fositeServer is the refresh_token grant of the library fosite on the in-memory
// store that comes with it, both unchanged.
//
//	POST /login   client_id=bench: begins a session, without a login
//	POST /token   the token endpoint of OAuth 2.0 with this grant alone
//
// Both answer with a refresh_token. The client is a public one, so that no
// password is hashed. The store keeps used refresh tokens, as it must to
// recognize them, and drops none of them.
type fositeServer struct {
	provider fosite.OAuth2Provider
	strategy *oauth2.HMACSHAStrategy
	store    *storage.MemoryStore
	client   fosite.Client
}

// newFosite returns the handler of the reference fosite.
func newFosite() http.Handler {
	s := &fositeServer{store: storage.NewMemoryStore()}
	s.client = &fosite.DefaultClient{ID: "bench", Public: true, GrantTypes: []string{"refresh_token"}, Scopes: []string{"offline"}}
	s.store.Clients[s.client.GetID()] = s.client
	config := &fosite.Config{GlobalSecret: make([]byte, 32)}
	rand.Read(config.GlobalSecret)
	s.strategy = compose.NewOAuth2HMACStrategy(config)
	s.provider = compose.Compose(config, s.store, s.strategy, compose.OAuth2RefreshTokenGrantFactory)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", s.token)
	mux.HandleFunc("POST /login", s.login)
	return mux
}

// token is the token endpoint, as in the documentation of the library.
func (s *fositeServer) token(w http.ResponseWriter, r *http.Request) {
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

// login begins a session, as a grant with a login page does.
func (s *fositeServer) login(w http.ResponseWriter, r *http.Request) {
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
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"refresh_token": token}) // a failed write shows as a failed request
}
