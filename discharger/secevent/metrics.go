package secevent

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts deliveries, by homeserver. A nil Metrics counts nothing.
type Metrics struct {
	deliveredTotal, refusedTotal, failedTotal, gapsTotal *prometheus.CounterVec
	age                                                  *prometheus.Desc

	mu     sync.Mutex
	oldest map[string]time.Time // time of the oldest undelivered revocation; zero: none
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	by := []string{"homeserver"}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, by)
	}
	m := &Metrics{
		deliveredTotal: counter("discharger_security_events_delivered_total", "Security events that the receiver accepted."),
		refusedTotal:   counter("discharger_security_events_refused_total", "Security events that the receiver rejected; they were skipped."),
		failedTotal:    counter("discharger_security_events_failed_total", "Failed attempts to deliver a security event; they are retried."),
		gapsTotal:      counter("discharger_security_events_gaps_total", "Times that revocations were missing from the feed, or malformed."),
		age: prometheus.NewDesc("discharger_security_events_oldest_seconds",
			"Age of the oldest undelivered revocation; 0: there is none.", by, nil),
		oldest: make(map[string]time.Time),
	}
	for _, c := range []prometheus.Collector{m.deliveredTotal, m.refusedTotal, m.failedTotal, m.gapsTotal, m} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
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
	if m == nil {
		return
	}
	for _, c := range []*prometheus.CounterVec{m.deliveredTotal, m.refusedTotal, m.failedTotal, m.gapsTotal} {
		c.WithLabelValues(homeserver)
	}
	m.waiting(homeserver, time.Time{})
}

// end removes the age of a receiver's oldest revocation, which is unknown from now
// on.
func (m *Metrics) end(homeserver string) {
	if m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.oldest, homeserver)
	}
}

// waiting sets the time of the revocation to deliver next; zero: there is none.
func (m *Metrics) waiting(homeserver string, since time.Time) {
	if m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.oldest[homeserver] = since
	}
}

func (m *Metrics) delivered(homeserver string) {
	if m != nil {
		m.deliveredTotal.WithLabelValues(homeserver).Inc()
	}
}

func (m *Metrics) refused(homeserver string) {
	if m != nil {
		m.refusedTotal.WithLabelValues(homeserver).Inc()
	}
}

func (m *Metrics) failed(homeserver string) {
	if m != nil {
		m.failedTotal.WithLabelValues(homeserver).Inc()
	}
}

func (m *Metrics) gap(homeserver string) {
	if m != nil {
		m.gapsTotal.WithLabelValues(homeserver).Inc()
	}
}
