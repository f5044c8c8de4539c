package secevent

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what becomes of security events. All are labelled with the
// homeserver. Nil counts nothing.
type Metrics struct {
	now func() time.Time

	deliveredTotal, refusedTotal, failedTotal, gapsTotal *prometheus.CounterVec
	age                                                  *prometheus.Desc

	mu     sync.Mutex
	oldest map[string]time.Time // when what the receiver waits for was revoked; zero: it waits for nothing
}

// NewMetrics makes the metrics and registers them. Now is for the age of what
// was not delivered yet.
func NewMetrics(reg prometheus.Registerer, now func() time.Time) (*Metrics, error) {
	by := []string{"homeserver"}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "discharger_security_events_" + name, Help: help}, by)
	}
	m := &Metrics{
		now:            now,
		deliveredTotal: counter("delivered_total", "Security events that the receiver has taken."),
		refusedTotal:   counter("refused_total", "Security events that the receiver refused for ever; they were passed over."),
		failedTotal:    counter("failed_total", "Attempts to deliver a security event that will be made again."),
		gapsTotal:      counter("gaps_total", "Times that revocations could not be told because they were not to be had, or not to be read."),
		age: prometheus.NewDesc("discharger_security_events_oldest_seconds",
			"How long ago the oldest revocation was that the receiver was not told yet; 0: there is none.", by, nil),
		oldest: make(map[string]time.Time),
	}
	for _, c := range []prometheus.Collector{m.deliveredTotal, m.refusedTotal, m.failedTotal, m.gapsTotal, m} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// Describe tells what Collect gives.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) { to <- m.age }

// Collect gives the age of the oldest revocation of each receiver.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	now := m.now()
	m.mu.Lock()
	oldest := maps.Clone(m.oldest)
	m.mu.Unlock()
	for homeserver, at := range oldest {
		age := 0.0
		if !at.IsZero() {
			age = max(now.Sub(at), 0).Seconds()
		}
		to <- prometheus.MustNewConstMetric(m.age, prometheus.GaugeValue, age, homeserver)
	}
}

// begin makes a receiver's series, so that what never happened is 0.
func (m *Metrics) begin(homeserver string) {
	if m == nil {
		return
	}
	for _, c := range []*prometheus.CounterVec{m.deliveredTotal, m.refusedTotal, m.failedTotal, m.gapsTotal} {
		c.WithLabelValues(homeserver)
	}
	m.waiting(homeserver, time.Time{})
}

// end takes away what would only look true.
func (m *Metrics) end(homeserver string) {
	if m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.oldest, homeserver)
	}
}

// waiting notes when that was revoked which a receiver is to be told next.
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
