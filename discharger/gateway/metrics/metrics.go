// Package metrics defines the metrics of the gateway. Labels come from fixed sets.
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
	var all collectors
	requests := all.counters("discharger_gateway_requests_total", "Requests by the kind of their token and by outcome.", "token", "outcome")
	m := &Metrics{
		fetches:     all.counters("discharger_gateway_fetches_total", "Requests for discharges to the service, by operation and result.", "op", "result"),
		Revocations: all.counters("discharger_gateway_orders_total", "Revocations sent to the service, by result.", "result"),
		Logouts:     all.counters("discharger_gateway_reaped_total", "Logouts of devices at the homeserver whose sessions had ended at the service, by result.", "result"),
		Seen:        all.counters("discharger_gateway_seen_total", "Epochs reported to the service as seen in use, by result.", "result"),
		ShortLogins: all.counter("discharger_gateway_short_logins_total", "Logins with refresh tokens whose session ends when the homeserver's token expires: "+
			"remove nonrefreshable_access_token_lifetime there."),
		MalformedFor: all.counter("discharger_gateway_forwarded_malformed_total", "Requests of trusted proxies whose X-Forwarded-For could not be parsed; "+
			"they count under the proxy's address."),
		UnknownKeys: all.counter("discharger_gateway_unknown_keys_total", "Requests answered 503 because the token's master key is not in the key file that this process has read."),
	}
	for k := range m.requests {
		for o := range m.requests[k] {
			m.requests[k][o] = requests.WithLabelValues(token.Kind(k).String(), reply.Outcome(o).String())
		}
	}
	for o := range m.none {
		m.none[o] = requests.WithLabelValues(noToken, reply.Outcome(o).String())
	}
	all.gauge("discharger_gateway_cached_sessions", "Sessions whose discharges the gateway keeps.", nil, func() float64 { return float64(g.Sessions()) })
	all.gauge("discharger_gateway_cache_bytes", "Estimated memory of the gateway's caches, without that of verified tokens.", nil, func() float64 { return float64(g.Bytes()) })
	all.gauge("discharger_gateway_waiting_requests", "Requests waiting for the service; after 10 s they are answered 503.", nil, func() float64 { return float64(g.Waiting()) })
	for s, name := range map[admission.Span]string{admission.Brief: "brief", admission.Lasting: "lasting"} {
		all.gauge("discharger_gateway_busy_requests", "Requests in progress; span is brief, or lasting for sync, events and large files.",
			prometheus.Labels{"span": name}, func() float64 { return float64(g.Busy(s)) })
	}
	all.gauge("discharger_gateway_feed_silence_seconds", "Seconds since the gateway last had all revocations of the service; -1: not since the start.", nil, func() float64 {
		s := g.Feed()
		if s.LastContact.IsZero() {
			return -1
		}
		return s.Staleness.Seconds()
	})
	return m, all.register(reg)
}

// collectors are metrics to be registered.
type collectors []prometheus.Collector

func (c *collectors) counters(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	*c = append(*c, v)
	return v
}

func (c *collectors) counter(name, help string) prometheus.Counter {
	return c.counters(name, help).WithLabelValues()
}

func (c *collectors) gauge(name, help string, labels prometheus.Labels, value func() float64) {
	*c = append(*c, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value))
}

func (c *collectors) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	for _, metric := range *c {
		if err := reg.Register(metric); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
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
		return "ok"
	case errors.Is(err, client.ErrRefused):
		return "refused"
	case errors.Is(err, client.ErrUnavailable):
		return "unavailable"
	}
	return "error"
}
