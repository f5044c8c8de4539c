package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// feedMetrics are the metrics of the feed, all with the homeserver as label. Nil counts
// nothing.
type feedMetrics struct {
	open   *prometheus.GaugeVec
	events *prometheus.CounterVec
	cut    *prometheus.CounterVec
	gaps   *prometheus.CounterVec
	lag    *prometheus.HistogramVec
}

func newFeedMetrics() *feedMetrics {
	by := []string{"homeserver"}
	return &feedMetrics{
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "discharger_feed_subscribers",
			Help: "Open streams of revocations.",
		}, by),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "discharger_feed_events_total",
			Help: "Revocations that were read to be sent, once for all streams of a homeserver.",
		}, by),
		cut: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "discharger_feed_cut_off_total",
			Help: "Streams that were ended because their reader was too slow.",
		}, by),
		gaps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "discharger_feed_gaps_total",
			Help: "Gaps sent to readers: revocations may be missing.",
		}, by),
		lag: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "discharger_feed_lag_seconds",
			Help:    "Time from a revocation to its being sent.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60},
		}, by),
	}
}

func (m *feedMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.open, m.events, m.cut, m.gaps, m.lag}
}

func (m *feedMetrics) subscribers(homeserver string, more float64) {
	if m != nil {
		m.open.WithLabelValues(homeserver).Add(more)
	}
}

func (m *feedMetrics) event(homeserver string, lag time.Duration) {
	if m != nil {
		m.events.WithLabelValues(homeserver).Inc()
		m.lag.WithLabelValues(homeserver).Observe(max(lag, 0).Seconds())
	}
}

func (m *feedMetrics) cutOff(homeserver string) {
	if m != nil {
		m.cut.WithLabelValues(homeserver).Inc()
	}
}

func (m *feedMetrics) gap(homeserver string) {
	if m != nil {
		m.gaps.WithLabelValues(homeserver).Inc()
	}
}
