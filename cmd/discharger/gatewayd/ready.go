package gatewayd

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/discharger/discharger/discharger/gateway"
	"github.com/discharger/discharger/discharger/wire"
)

// pathGatewayReady has the readiness of a gateway, at admin_listen of its process.
// On its own, a gateway has it at /readyz too, which is the service's where there
// is one.
const PathGatewayReady = wire.PathReady + "/gateway"

// readiness answers there: 200 where requests should come to the gateway, and
// 503 where they should go to another. The body has the state of each part. Without
// the service the gateway is degraded, and still the right one: what has a
// discharge goes on, and another gateway has no other service.
type readiness struct {
	gateway  *gateway.Gateway
	draining atomic.Bool
	log      *slog.Logger
}

// readyBody is the body of the answer.
type readyBody struct {
	Status     string `json:"status"`     // ready, degraded, not ready or draining
	Homeserver string `json:"homeserver"` // these are ok or a problem
	File       string `json:"gateway_db"` // whether gateway.db in data_dir can be written
	Service    string `json:"service"`
}

func (r *readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	h := r.gateway.Health(req.Context())
	body := readyBody{"ready", partStatus(h.Homeserver), partStatus(h.Vault), partStatus(h.Service)}
	code := http.StatusOK
	switch {
	case r.draining.Load():
		body.Status, code = "draining", http.StatusServiceUnavailable
	case !h.Ready():
		body.Status, code = "not ready", http.StatusServiceUnavailable
		r.log.WarnContext(req.Context(), "not ready", slog.String("homeserver", body.Homeserver), slog.String("gateway_db", body.File))
	case h.Service != nil:
		body.Status = "degraded"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the client has gone: nothing to do
}

func partStatus(problem error) string {
	if problem != nil {
		return problem.Error()
	}
	return "ok"
}
