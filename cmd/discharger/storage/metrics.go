package storage

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/redis"
)

func register(reg prometheus.Registerer, all ...prometheus.Collector) error {
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

func gauge(name, help string, get func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, get)
}

func counter(name, help string, get func() uint64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(get()) })
}

// storeLost is the metric of lost data, for either kind of store.
func storeLost(s interface{ Lost() bool }) prometheus.Collector {
	return gauge("discharger_store_lost", "1 while the store has lost data and an operator has not accepted that, else 0.",
		func() float64 { return oneIf(s.Lost()) })
}

func oneIf(set bool) float64 {
	if set {
		return 1
	}
	return 0
}

// unix returns a time in seconds; 0: there is none.
func unix(at time.Time) float64 {
	if at.IsZero() {
		return 0
	}
	return float64(at.UnixMilli()) / 1000
}

// registerBolt registers the metrics of a store in a file and its journal, which may be
// nil.
func registerBolt(reg prometheus.Registerer, s *bolt.Store, j *journal.Journal) error {
	err := register(reg,
		storeLost(s),
		gauge("discharger_store_loss_timestamp_seconds", "When the store was made, or a loss of data was accepted last, Unix time; 0: never.",
			func() float64 { return float64(s.Losses().Missing) / 1000 }),
		gauge("discharger_store_revocations_lost_timestamp_seconds", "When data that may lack revocations was accepted last, Unix time; 0: never.",
			func() float64 { return float64(s.Losses().All) / 1000 }),
	)
	if err != nil || j == nil {
		return err
	}
	err = register(reg, gauge("discharger_journal_damaged", "1 if the journal is damaged, else 0.",
		func() float64 { return oneIf(j.Damage() != nil) }))
	if err != nil {
		return err
	}
	return registerJournal(reg, s.JournalStats)
}

// registerRedis registers the metrics of a store in Redis and its journal, which may be
// nil.
func registerRedis(reg prometheus.Registerer, s *redis.Store, j *journal.Journal) error {
	err := register(reg,
		counter("discharger_redis_evicted_keys_total", "Keys that the servers have evicted since the start: sessions and revocations may be lost.",
			func() uint64 { return s.Stats().Evicted }),
		gauge("discharger_redis_refused", "1 while a primary may evict keys and the store answers nothing, else 0.",
			func() float64 { return oneIf(s.Stats().Refused) }),
		storeLost(s),
		gauge("discharger_store_born_timestamp_seconds", "When the store was made, Unix time; 0: by an earlier version.",
			func() float64 { return unix(s.Stats().Losses.Born) }),
		gauge("discharger_store_loss_timestamp_seconds", "When a loss of data was accepted last, Unix time; 0: never.",
			func() float64 { return unix(s.Stats().Losses.Missing) }),
	)
	if err != nil || j == nil {
		return err
	}
	return registerJournal(reg, s.JournalStats)
}

// registerJournal registers the metrics of a journal.
func registerJournal(reg prometheus.Registerer, stats func() journal.Stats) error {
	return register(reg,
		gauge("discharger_journal_entries", "Revocations in this process's journal.",
			func() float64 { return float64(stats().Entries) }),
		gauge("discharger_journal_bytes", "Size of the journal's file.",
			func() float64 { return float64(stats().Bytes) }),
		gauge("discharger_journal_shut", "1 while revocations are being replayed and the store answers nothing, else 0.",
			func() float64 { return oneIf(stats().Shut) }),
		gauge("discharger_journal_failover_timestamp_seconds", "When another primary was met last, Unix time; 0: not since the start.",
			func() float64 { return unix(stats().LastFailover) }),
		counter("discharger_journal_added_total", "Revocations written to the journal.",
			func() uint64 { return stats().Added }),
		counter("discharger_journal_dropped_total", "Entries removed before their time because the journal was full.",
			func() uint64 { return stats().Dropped }),
		counter("discharger_journal_replays_total", "Times that the journal was replayed, at the start and after failovers.",
			func() uint64 { return stats().Replays }),
		counter("discharger_journal_replayed_total", "Records that a replay had to mend: revocations that were lost.",
			func() uint64 { return stats().Replayed }),
		counter("discharger_journal_missing_events_total", "Events that a replay had to publish again, whose revocations were not lost.",
			func() uint64 { return stats().Missing }),
	)
}
