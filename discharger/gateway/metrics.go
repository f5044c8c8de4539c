package gateway

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/token"
)

// outcome is what became of a request, for metrics and the log.
type outcome uint8

const (
	outcomeForwarded   outcome = iota // the homeserver answered
	outcomeOwn                        // the gateway answered, as it was asked to
	outcomeRefused                    // the token is no good
	outcomeForbidden                  // the token is not for this
	outcomeDenied                     // a path that is not passed on
	outcomeMalformed                  // the request cannot be read
	outcomeUnavailable                // not decided
	outcomeUpstream                   // the homeserver did not answer
	outcomeGone                       // the client did not wait
	outcomeSlow                       // the client did not send
	outcomeLimited                    // too many at a time
	outcomes
)

var outcomeNames = [outcomes]string{
	"forwarded", "answered", "refused", "forbidden", "denied", "malformed", "unavailable", "upstream_error", "client_gone", "client_slow", "limited",
}

// String names the outcome as it is in metrics.
func (o outcome) String() string { return outcomeNames[o] }

// Results of what the gateway asks for itself.
const (
	resultOK          = "ok"
	resultRefused     = "refused"
	resultUnavailable = "unavailable"
	resultError       = "error"
)

// noToken is the label of requests without a token.
const noToken = "none"

// metrics counts. Labels come from fixed sets.
type metrics struct {
	requests [token.Refresh + 1][outcomes]prometheus.Counter
	none     [outcomes]prometheus.Counter
	fetches  *prometheus.CounterVec
	orders   *prometheus.CounterVec
	reaped   *prometheus.CounterVec
	seen     *prometheus.CounterVec
	// shortLogins counts sessions in mode rotate that end with the homeserver's token.
	shortLogins prometheus.Counter

	malformedFor prometheus.Counter // values of X-Forwarded-For
	unknownKeys  prometheus.Counter
}

// newMetrics makes the metrics and registers them, if there is where.
func newMetrics(reg prometheus.Registerer, g *Gateway) (*metrics, error) {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "discharger_gateway_requests_total",
		Help: "Requests by the kind of their token and by outcome.",
	}, []string{"token", "outcome"})
	m := &metrics{
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "discharger_gateway_fetches_total",
			Help: "Requests for discharges to the service, by operation and result.",
		}, []string{"op", "result"}),
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "discharger_gateway_orders_total",
			Help: "Revocations sent to the service, by result.",
		}, []string{"result"}),
		reaped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "discharger_gateway_reaped_total",
			Help: "Logouts of devices at the homeserver whose sessions had ended at the service, by result.",
		}, []string{"result"}),
		seen: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "discharger_gateway_seen_total",
			Help: "Epochs reported to the service as seen in use, by result.",
		}, []string{"result"}),
		shortLogins: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discharger_gateway_short_logins_total",
			Help: "Logins with refresh tokens whose session ends when the homeserver's token expires: remove nonrefreshable_access_token_lifetime there.",
		}),
		malformedFor: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discharger_gateway_forwarded_malformed_total",
			Help: "Requests of trusted proxies whose X-Forwarded-For could not be parsed; they count under the proxy's address.",
		}),
	}
	m.unknownKeys = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "discharger_gateway_unknown_keys_total",
		Help: "Requests answered 503 because the token's master key is not in the key file that this process has read.",
	})
	for k := range m.requests {
		for o := range m.requests[k] {
			m.requests[k][o] = requests.WithLabelValues(token.Kind(k).String(), outcome(o).String())
		}
	}
	for o := range m.none {
		m.none[o] = requests.WithLabelValues(noToken, outcome(o).String())
	}
	cached := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "discharger_gateway_cached_sessions",
		Help: "Sessions whose discharges the gateway keeps.",
	}, func() float64 { return float64(g.held.sessions.size()) })
	cacheBytes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "discharger_gateway_cache_bytes",
		Help: "Estimated memory of the gateway's caches, without that of verified tokens.",
	}, func() float64 { return float64(g.cacheBytes()) })
	busy := func(s span, name string) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "discharger_gateway_busy_requests", Help: "Requests in progress; span is brief, or lasting for sync, events and large files.",
			ConstLabels: prometheus.Labels{"span": name},
		}, func() float64 { return float64(g.limiter.busy(s)) })
	}
	silence := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "discharger_gateway_feed_silence_seconds",
		Help: "Seconds since the gateway last had all revocations of the service; -1: not since the start.",
	}, func() float64 {
		s := g.feed.Status()
		if s.LastContact.IsZero() {
			return -1
		}
		return s.Staleness.Seconds()
	})
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "discharger_gateway_waiting_requests",
		Help: "Requests waiting for the service; after 10 s they are answered 503.",
	}, func() float64 { return float64(g.room.size()) })
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		requests, m.fetches, m.orders, m.reaped, m.seen, m.shortLogins, m.malformedFor, m.unknownKeys, cached, cacheBytes, silence,
		waiting, busy(brief, "brief"), busy(lasting, "lasting"),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// request counts one.
func (m *metrics) request(x *exchange) {
	if !x.token {
		m.none[x.outcome].Inc()
		return
	}
	m.requests[x.kind][x.outcome].Inc()
}

// fetched counts one discharge that was asked for.
func (m *metrics) fetched(op string, err error) { m.fetches.WithLabelValues(op, resultOf(err)).Inc() }

func resultOf(err error) string {
	switch {
	case err == nil:
		return resultOK
	case errors.Is(err, client.ErrRefused):
		return resultRefused
	case errors.Is(err, client.ErrUnavailable):
		return resultUnavailable
	}
	return resultError
}
