package server

import (
	"cmp"
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

// Metrics are the Prometheus metrics of the service, and its [discharger.Observer].
// Labels come from fixed sets; the values of homeserver are those configured.
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

	// Of the feed, by homeserver.
	feedStreams *prometheus.GaugeVec
	feedEvents  *prometheus.CounterVec
	feedCut     *prometheus.CounterVec
	feedGaps    *prometheus.CounterVec
	feedLag     *prometheus.HistogramVec
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	made := maker{reg: reg}
	m := &Metrics{
		requests: made.counters("discharger_requests_total",
			"Answered requests by operation, homeserver, mode, result, reason of refusal and, if the session is over, kind of end.",
			"op", "homeserver", "mode", "result", "reason", "end"),
		took: made.histograms("discharger_request_seconds",
			"Time from the opened request to the decision, by operation and result.",
			[]float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, .5, 2}, "op", "result"),
		replays: made.counters("discharger_replays_total",
			"Refresh tokens that were presented more than once: retry, fork, stale or reuse.", "homeserver", "kind"),
		retries: made.counter("discharger_lost_races_total",
			"Swaps started over because another request had changed the session."),
		marks: made.counter("discharger_future_marks_total",
			"Requests that were undecided because of a revocation mark in the future: a clock was wrong when it was made."),
		lost: made.counter("discharger_store_lost_writes_total",
			"Refresh tokens newer than the session's record, or without one: the store lost a write."),
		unknown: made.counters("discharger_unknown_keys_total",
			"Requests answered 503 because a key is not in the key file or configuration that this process has read, "+
				"by kind: discharger, homeserver, refresh, api.", "kind"),
		store: made.histograms("discharger_store_seconds", "Time of store operations, by operation and whether they failed.",
			[]float64{.00001, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .05, .25, 1}, "op", "result"),
		shed: made.counters("discharger_shed_requests_total",
			"Requests answered 503 because of a limit: in_flight, per_address, or reading (bodies being received).", "limit"),
		badFor: made.counter("discharger_forwarded_malformed_total",
			"Requests of trusted proxies whose X-Forwarded-For could not be parsed; they count under the proxy's address."),

		feedStreams: made.gauges("discharger_feed_subscribers", "Open streams of revocations.", "homeserver"),
		feedEvents: made.counters("discharger_feed_events_total",
			"Revocations that were read to be sent, once for all streams of a homeserver.", "homeserver"),
		feedCut: made.counters("discharger_feed_cut_off_total",
			"Streams that were ended because their reader was too slow.", "homeserver"),
		feedGaps: made.counters("discharger_feed_gaps_total", "Gaps sent to readers: revocations may be missing.", "homeserver"),
		feedLag: made.histograms("discharger_feed_lag_seconds", "Time from a revocation to its being sent.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60}, "homeserver"),
	}
	for _, l := range []limit{limitAddress, limitReading, limitPlaces} {
		m.shed.WithLabelValues(string(l))
	}
	if made.err != nil {
		return nil, fmt.Errorf("register metrics: %w", made.err)
	}
	return m, nil
}

// maker makes and registers metrics. err is the first error.
type maker struct {
	reg prometheus.Registerer
	err error
}

func register[C prometheus.Collector](m *maker, c C) C {
	m.err = cmp.Or(m.err, m.reg.Register(c))
	return c
}

func (m *maker) counter(name, help string) prometheus.Counter {
	return m.counters(name, help).WithLabelValues()
}

func (m *maker) counters(name, help string, labels ...string) *prometheus.CounterVec {
	return register(m, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
}

func (m *maker) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return register(m, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels))
}

func (m *maker) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return register(m, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels))
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

// reasonLabel keeps the label's values few: a policy can have any reason.
func reasonLabel(r session.Reason) string {
	if r == "" || sentences[r] != "" {
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
	t.m.store.WithLabelValues(op, resultLabel(*err)).Observe(time.Since(start).Seconds())
}

func resultLabel(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

func (t *timedStore) Load(ctx context.Context, u store.UserKey, id caveat.SessionID, d revocation.DeviceTag) (v store.View, err error) {
	defer t.done("load", time.Now(), &err)
	return t.Store.Load(ctx, u, id, d)
}

func (t *timedStore) List(ctx context.Context, u store.UserKey) (l store.Listing, err error) {
	defer t.done("list", time.Now(), &err)
	return t.Store.List(ctx, u)
}

func (t *timedStore) Swap(ctx context.Context, w store.Write) (ok bool, err error) {
	defer t.done("swap", time.Now(), &err)
	return t.Store.Swap(ctx, w)
}

func (t *timedStore) SwapHomeserver(ctx context.Context, name string, old, new []byte, revocations ...revocation.Revocation) (ok bool, err error) {
	defer t.done("swap_homeserver", time.Now(), &err)
	return t.Store.SwapHomeserver(ctx, name, old, new, revocations...)
}

func (t *timedStore) Publish(ctx context.Context, name string, revocations ...revocation.Revocation) (err error) {
	defer t.done("publish", time.Now(), &err)
	return t.Store.Publish(ctx, name, revocations...)
}
