package server

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
)

// Metrics are the Prometheus metrics of the service. Labels come from
// fixed sets; homeserver is as many as are configured. It is the service's
// [discharger.Observer], and with [Metrics.Store] it watches the store.
type Metrics struct {
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	replays  *prometheus.CounterVec
	retries  prometheus.Counter
	marks    prometheus.Counter
	lost     prometheus.Counter
	unknown  *prometheus.CounterVec
	store    *prometheus.HistogramVec
	shed     *prometheus.CounterVec
	badFor   prometheus.Counter
	feed     *feedMetrics
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		feed: newFeedMetrics(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "discharger_requests_total",
			Help: "Answered requests by operation, homeserver, mode, result, reason of refusal and, if the session is over, kind of end.",
		}, []string{"op", "homeserver", "mode", "result", "reason", "end"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "discharger_request_seconds",
			Help:    "Time from the opened request to the decision, by operation and result.",
			Buckets: []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, .5, 2},
		}, []string{"op", "result"}),
		replays: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "discharger_replays_total",
			Help: "Refresh tokens that were presented more than once: retry, fork, stale or reuse.",
		}, []string{"homeserver", "kind"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discharger_lost_races_total",
			Help: "Swaps started over because another request had changed the session.",
		}),
		marks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discharger_future_marks_total",
			Help: "Requests that were undecided because of a revocation mark in the future: a clock was wrong when it was made.",
		}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discharger_store_lost_writes_total",
			Help: "Refresh tokens newer than the session's record, or without one: the store lost a write.",
		}),
		unknown: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "discharger_unknown_keys_total",
			Help: "Requests answered 503 because a key is not in the key file or configuration that this process has read, by kind: discharger, homeserver, refresh, api.",
		}, []string{"kind"}),
		store: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "discharger_store_seconds",
			Help:    "Time of store operations, by operation and whether they failed.",
			Buckets: []float64{.00001, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .05, .25, 1},
		}, []string{"op", "result"}),
		shed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "discharger_shed_requests_total",
			Help: "Requests answered 503 because of a limit: in_flight, per_address, or reading (bodies being received).",
		}, []string{"limit"}),
		badFor: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "discharger_forwarded_malformed_total",
			Help: "Requests of trusted proxies whose X-Forwarded-For could not be parsed; they count under the proxy's address.",
		}),
	}
	for _, l := range []limit{limitAddress, limitReading, limitPlaces} {
		m.shed.WithLabelValues(string(l))
	}
	for _, c := range append(m.feed.collectors(), m.requests, m.took, m.replays, m.retries, m.marks, m.lost, m.unknown, m.store, m.shed, m.badFor) {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// Observe counts one answered request, and notes it for the access line.
func (m *Metrics) Observe(ctx context.Context, o discharger.Observation) {
	if seen, ok := ctx.Value(seenKey{}).(*discharger.Observation); ok {
		*seen = o
	}
	mode := ""
	if o.Mode != 0 {
		mode = o.Mode.String()
	}
	m.requests.WithLabelValues(string(o.Op), o.Homeserver, mode, string(o.Result), reasonLabel(o.Reason), endLabel(&o)).Inc()
	m.took.WithLabelValues(string(o.Op), string(o.Result)).Observe(o.Took.Seconds())
	if o.Replay != "" && o.Replay != "none" {
		m.replays.WithLabelValues(o.Homeserver, string(o.Replay)).Inc()
	}
	if o.Retries > 0 {
		m.retries.Add(float64(o.Retries))
	}
	if o.FutureMark {
		m.marks.Inc()
	}
	if o.UnknownKey != "" {
		m.unknown.WithLabelValues(string(o.UnknownKey)).Inc()
	}
	if o.LostWrite {
		m.lost.Inc()
	}
}

// shedOne counts a request that was over a limit.
func (m *Metrics) shedOne(l limit) {
	if m != nil {
		m.shed.WithLabelValues(string(l)).Inc()
	}
}

// reasonLabel keeps the label's values few: a policy can say anything.
func reasonLabel(r session.Reason) string {
	switch r {
	case "", session.ReasonSessionEnded, session.ReasonSessionExpired, session.ReasonTokenRequired,
		session.ReasonTokenInvalid, session.ReasonTokenSuperseded, session.ReasonTokenReused,
		session.ReasonHomeserverRequired, session.ReasonSessionLost, session.ReasonReplaced:
		return string(r)
	}
	return string(session.ReasonPolicy)
}

// endLabel returns the kind of end with which a request was refused; "": the
// session is not over.
func endLabel(o *discharger.Observation) string {
	if !o.Ended {
		return ""
	}
	return kindOf(o.SoftLogout)
}

// Store returns the store with its operations timed.
func (m *Metrics) Store(s store.Store) store.Store { return &timedStore{s, m} }

type timedStore struct {
	store.Store
	m *Metrics
}

func (t *timedStore) done(op string, start time.Time, err *error) {
	result := "ok"
	if *err != nil {
		result = "error"
	}
	t.m.store.WithLabelValues(op, result).Observe(time.Since(start).Seconds())
}

// Load times the store's Load.
func (t *timedStore) Load(ctx context.Context, u store.UserKey, id caveat.SessionID, d revocation.DeviceTag) (v store.View, err error) {
	defer t.done("load", time.Now(), &err)
	return t.Store.Load(ctx, u, id, d)
}

// List times the store's List.
func (t *timedStore) List(ctx context.Context, u store.UserKey) (l store.Listing, err error) {
	defer t.done("list", time.Now(), &err)
	return t.Store.List(ctx, u)
}

// Swap times the store's Swap.
func (t *timedStore) Swap(ctx context.Context, w store.Write) (ok bool, err error) {
	defer t.done("swap", time.Now(), &err)
	return t.Store.Swap(ctx, w)
}

// SwapHomeserver times the store's SwapHomeserver.
func (t *timedStore) SwapHomeserver(ctx context.Context, name string, old, new []byte, revocations ...revocation.Revocation) (ok bool, err error) {
	defer t.done("swap_homeserver", time.Now(), &err)
	return t.Store.SwapHomeserver(ctx, name, old, new, revocations...)
}

// Publish times the store's Publish.
func (t *timedStore) Publish(ctx context.Context, name string, revocations ...revocation.Revocation) (err error) {
	defer t.done("publish", time.Now(), &err)
	return t.Store.Publish(ctx, name, revocations...)
}
