package gatewayd

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/discharger/discharger/discharger/gateway"
	"github.com/discharger/discharger/discharger/wire"
)

// PathGatewayReady is the path of a gateway's readiness, at admin_listen of its process.
// A gateway beside a separate service has it at /readyz too.
const PathGatewayReady = wire.PathReady + "/gateway"

// readiness answers 200 if the gateway takes requests, and 503 if they should go to
// another one. The body has the state of each part. Without the service the gateway is
// degraded and still takes requests: sessions with a discharge go on, and the other
// gateways have the same service.
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

// ServeHTTP checks the parts and answers.
func (r *readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	h := r.gateway.Health(req.Context())
	body := readyBody{"ready", partStatus(h.Homeserver), partStatus(h.Outbox), partStatus(h.Service)}
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
	_ = json.NewEncoder(w).Encode(body) // the client may have gone
}

func partStatus(problem error) string {
	if problem != nil {
		return problem.Error()
	}
	return "ok"
}
