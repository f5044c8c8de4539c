package metrics

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/homeserver"
)

// Results of the gateway's own calls.
const (
	resultOK          = "ok"
	resultRefused     = "refused"
	resultUnavailable = "unavailable"
	resultError       = "error"
)

// noToken is the label of requests without a token.
const noToken = "none"

// Metrics are the counters of a gateway. It may be used concurrently.
type Metrics struct {
	requests    [token.Refresh + 1][reply.Outcomes]prometheus.Counter
	none        [reply.Outcomes]prometheus.Counter // without a token
	fetches     *prometheus.CounterVec
	Revocations *prometheus.CounterVec // sent to the service, by result
	Logouts     *prometheus.CounterVec // sent to the homeserver, by result
	Seen        *prometheus.CounterVec // epochs reported to the service, by result
	ShortLogins prometheus.Counter     // sessions in mode rotate that end with the homeserver's token

	MalformedFor prometheus.Counter // values of X-Forwarded-For
	UnknownKeys  prometheus.Counter // requests whose master key is unknown
}

// Gauges are functions that return values at the collection of metrics.
type Gauges struct {
	Sessions func() int               // whose discharges are cached
	Bytes    func() int               // of the caches
	Waiting  func() int               // requests that wait for the service
	Busy     func(admission.Span) int // requests in progress
	Feed     func() homeserver.FeedStatus
}

// New returns metrics, registered at reg; nil: nowhere.
func New(reg prometheus.Registerer, g Gauges) (*Metrics, error) {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "discharger_gateway_requests_total",
		Help: "Requests by the kind of their token and by outcome.",
	}, []string{"token", "outcome"})
	m := &Metrics{
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "discharger_gateway_fetches_total",
			Help: "Requests for discharges to the service, by operation and result.",
		}, []string{"op", "result"}),
		Revocations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "discharger_gateway_orders_total",
			Help: "Revocations sent to the service, by result.",
		}, []string{"result"}),
		Logouts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "discharger_gateway_reaped_total",
			Help: "Logouts of devices at the homeserver whose sessions had ended at the service, by result.",
		}, []string{"result"}),
		Seen: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "discharger_gateway_seen_total",
			Help: "Epochs reported to the service as seen in use, by result.",
		}, []string{"result"}),
		ShortLogins: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discharger_gateway_short_logins_total",
			Help: "Logins with refresh tokens whose session ends when the homeserver's token expires: remove nonrefreshable_access_token_lifetime there.",
		}),
		MalformedFor: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discharger_gateway_forwarded_malformed_total",
			Help: "Requests of trusted proxies whose X-Forwarded-For could not be parsed; they count under the proxy's address.",
		}),
	}
	m.UnknownKeys = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "discharger_gateway_unknown_keys_total",
		Help: "Requests answered 503 because the token's master key is not in the key file that this process has read.",
	})
	for k := range m.requests {
		for o := range m.requests[k] {
			m.requests[k][o] = requests.WithLabelValues(token.Kind(k).String(), reply.Outcome(o).String())
		}
	}
	for o := range m.none {
		m.none[o] = requests.WithLabelValues(noToken, reply.Outcome(o).String())
	}
	cached := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "discharger_gateway_cached_sessions",
		Help: "Sessions whose discharges the gateway keeps.",
	}, func() float64 { return float64(g.Sessions()) })
	cacheBytes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "discharger_gateway_cache_bytes",
		Help: "Estimated memory of the gateway's caches, without that of verified tokens.",
	}, func() float64 { return float64(g.Bytes()) })
	busy := func(s admission.Span, name string) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "discharger_gateway_busy_requests", Help: "Requests in progress; span is brief, or lasting for sync, events and large files.",
			ConstLabels: prometheus.Labels{"span": name},
		}, func() float64 { return float64(g.Busy(s)) })
	}
	silence := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "discharger_gateway_feed_silence_seconds",
		Help: "Seconds since the gateway last had all revocations of the service; -1: not since the start.",
	}, func() float64 {
		s := g.Feed()
		if s.LastContact.IsZero() {
			return -1
		}
		return s.Staleness.Seconds()
	})
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "discharger_gateway_waiting_requests",
		Help: "Requests waiting for the service; after 10 s they are answered 503.",
	}, func() float64 { return float64(g.Waiting()) })
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		requests, m.fetches, m.Revocations, m.Logouts, m.Seen, m.ShortLogins, m.MalformedFor, m.UnknownKeys, cached, cacheBytes, silence,
		waiting, busy(admission.Brief, "brief"), busy(admission.Lasting, "lasting"),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// Request counts a request of a client.
func (m *Metrics) Request(kind token.Kind, hasToken bool, o reply.Outcome) {
	if !hasToken {
		m.none[o].Inc()
		return
	}
	m.requests[kind][o].Inc()
}

// Discharge counts a request for a discharge.
func (m *Metrics) Discharge(op string, err error) { m.fetches.WithLabelValues(op, Result(err)).Inc() }

// Result returns the label of the result of a call to the service.
func Result(err error) string {
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
