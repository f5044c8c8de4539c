package secevent

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts deliveries, by homeserver.
type Metrics struct {
	counters [counters]*prometheus.CounterVec
	age      *prometheus.Desc

	mu     sync.Mutex
	oldest map[string]time.Time // time of the oldest undelivered revocation; zero: none
}

// A counter is an index of Metrics.counters.
type counter uint8

const (
	delivered counter = iota
	refused
	failed
	gaps
	counters
)

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	by := []string{"homeserver"}
	m := &Metrics{
		age: prometheus.NewDesc("discharger_security_events_oldest_seconds",
			"Age of the oldest undelivered revocation; 0: there is none.", by, nil),
		oldest: make(map[string]time.Time),
	}
	errs := []error{reg.Register(m)}
	for c, opts := range [counters]prometheus.CounterOpts{
		delivered: {Name: "discharger_security_events_delivered_total", Help: "Security events that the receiver accepted."},
		refused:   {Name: "discharger_security_events_refused_total", Help: "Security events that the receiver rejected; they were skipped."},
		failed:    {Name: "discharger_security_events_failed_total", Help: "Failed attempts to deliver a security event; they are retried."},
		gaps:      {Name: "discharger_security_events_gaps_total", Help: "Times that revocations were missing from the feed, or malformed."},
	} {
		m.counters[c] = prometheus.NewCounterVec(opts, by)
		errs = append(errs, reg.Register(m.counters[c]))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(to chan<- *prometheus.Desc) { to <- m.age }

// Collect implements [prometheus.Collector]: the age of the oldest revocation of
// each receiver.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	oldest := maps.Clone(m.oldest)
	m.mu.Unlock()
	for homeserver, at := range oldest {
		age := 0.0
		if !at.IsZero() {
			age = max(time.Since(at), 0).Seconds()
		}
		to <- prometheus.MustNewConstMetric(m.age, prometheus.GaugeValue, age, homeserver)
	}
}

// begin creates the series of a receiver, with the value 0.
func (m *Metrics) begin(homeserver string) {
	for _, c := range m.counters {
		c.WithLabelValues(homeserver)
	}
	m.waiting(homeserver, time.Time{})
}

// end removes the age of a receiver's oldest revocation, which is unknown from now on.
func (m *Metrics) end(homeserver string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.oldest, homeserver)
}

// waiting sets the time of the revocation to deliver next; zero: there is none.
func (m *Metrics) waiting(homeserver string, since time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.oldest[homeserver] = since
}

// inc adds one to a counter of a receiver.
func (m *Metrics) inc(c counter, homeserver string) {
	m.counters[c].WithLabelValues(homeserver).Inc()
}
