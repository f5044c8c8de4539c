package gateway

import (
	"context"
	"net/http"
)

// admitForeign decides about a token that is not the gateway's: of an
// application service, or from before there was a gateway.
func (g *Gateway) admitForeign(context.Context, *exchange, credential) *failure { return nil }

// refreshForeign passes on a refresh with a token of the homeserver's own.
func (g *Gateway) refreshForeign(w http.ResponseWriter, r *http.Request, _ *exchange) *failure {
	g.proxy.ServeHTTP(w, r)
	return nil
}
