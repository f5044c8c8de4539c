package storage

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/redis"
)

// storeLost is the metric of lost data, for either kind of store.
func storeLost(s interface{ Lost() bool }) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "discharger_store_lost", Help: "1 while the store has lost data and an operator has not accepted that, else 0.",
	}, func() float64 { return oneIf(s.Lost()) })
}

func oneIf(set bool) float64 {
	if set {
		return 1
	}
	return 0
}

// registerBolt registers the metrics of a store in a file and its journal.
func registerBolt(reg prometheus.Registerer, s *bolt.Store, j *journal.Journal) error {
	gauge := func(name, help string, get func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, get)
	}
	for _, c := range []prometheus.Collector{
		storeLost(s),
		gauge("discharger_store_loss_timestamp_seconds", "When the store was made, or a loss of data was accepted last, Unix time; 0: never.",
			func() float64 { return float64(s.Losses().Missing) / 1000 }),
		gauge("discharger_store_revocations_lost_timestamp_seconds", "When data that may lack revocations was accepted last, Unix time; 0: never.",
			func() float64 { return float64(s.Losses().All) / 1000 }),
	} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	if j == nil {
		return nil
	}
	err := reg.Register(gauge("discharger_journal_damaged", "1 if the journal is damaged, else 0.",
		func() float64 { return oneIf(j.Damage() != nil) }))
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return registerJournal(reg, s)
}

// registerRedis registers the metrics of a store in Redis.
func registerRedis(reg prometheus.Registerer, s *redis.Store) error {
	since := func(name, help string, get func(redis.Losses) time.Time) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			at := get(s.Stats().Losses)
			if at.IsZero() {
				return 0
			}
			return float64(at.UnixMilli()) / 1000
		})
	}
	for _, c := range []prometheus.Collector{
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "discharger_redis_evicted_keys_total", Help: "Keys that the servers have evicted since the start: sessions and revocations may be lost.",
		}, func() float64 { return float64(s.Stats().Evicted) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "discharger_redis_refused", Help: "1 while a primary may evict keys and the store answers nothing, else 0.",
		}, func() float64 { return oneIf(s.Stats().Refused) }),
		storeLost(s),
		since("discharger_store_born_timestamp_seconds", "When the store was made, Unix time; 0: by an earlier version.",
			func(l redis.Losses) time.Time { return l.Born }),
		since("discharger_store_loss_timestamp_seconds", "When a loss of data was accepted last, Unix time; 0: never.",
			func(l redis.Losses) time.Time { return l.Missing }),
	} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

// registerJournal registers the metrics of a journal.
func registerJournal(reg prometheus.Registerer, s interface{ JournalStats() journal.Stats }) error {
	gauge := func(name, help string, get func(journal.Stats) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help},
			func() float64 { return get(s.JournalStats()) })
	}
	counter := func(name, help string, get func(journal.Stats) uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return float64(get(s.JournalStats())) })
	}
	for _, c := range []prometheus.Collector{
		gauge("discharger_journal_entries", "Revocations in this process's journal.",
			func(j journal.Stats) float64 { return float64(j.Entries) }),
		gauge("discharger_journal_bytes", "Size of the journal's file.",
			func(j journal.Stats) float64 { return float64(j.Bytes) }),
		gauge("discharger_journal_shut", "1 while revocations are being replayed and the store answers nothing, else 0.",
			func(j journal.Stats) float64 { return oneIf(j.Shut) }),
		gauge("discharger_journal_failover_timestamp_seconds", "When another primary was met last, Unix time; 0: not since the start.",
			func(j journal.Stats) float64 {
				if j.LastFailover.IsZero() {
					return 0
				}
				return float64(j.LastFailover.UnixMilli()) / 1000
			}),
		counter("discharger_journal_added_total", "Revocations written to the journal.",
			func(j journal.Stats) uint64 { return j.Added }),
		counter("discharger_journal_dropped_total", "Entries removed before their time because the journal was full.",
			func(j journal.Stats) uint64 { return j.Dropped }),
		counter("discharger_journal_replays_total", "Times that the journal was replayed, at the start and after failovers.",
			func(j journal.Stats) uint64 { return j.Replays }),
		counter("discharger_journal_replayed_total", "Records that a replay had to mend: revocations that were lost.",
			func(j journal.Stats) uint64 { return j.Replayed }),
		counter("discharger_journal_missing_events_total", "Events that a replay had to publish again, whose revocations were not lost.",
			func(j journal.Stats) uint64 { return j.Missing }),
	} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}
