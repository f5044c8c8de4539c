package measure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/discharger/discharger/cmd/bench/load"
	"github.com/discharger/discharger/cmd/bench/server"
)

// measured is a server whose use of resources is known.
type measured interface {
	Spent(ctx context.Context, after bool) (server.Spent, error)
	Stop() error
}

// subject is a server with its load.
type subject struct {
	name    string
	target  measured
	client  *load.Client
	samples []Sample
}

// Sample is the result of one round, or the median of several. Unknown numbers are
// zero.
type Sample struct {
	Requests  uint64  `json:"requests"`
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	P999      float64 `json:"p999_us"`
	CPU       float64 `json:"cpu_us"`      // processor time of the server for a request
	Allocs    float64 `json:"allocs"`      // of memory, for a request
	Bytes     float64 `json:"alloc_bytes"` // allocated for a request
	Ops       float64 `json:"store_ops"`   // of the store for a request: round trips, or transactions
	StoreCPU  float64 `json:"store_cpu_us"`
	Memory    int64   `json:"memory"`       // of the server, resident, in bytes
	Store     int64   `json:"store_memory"` // of Redis, in bytes
	Sent      Kinds   `json:"sent"`
}

// Kinds are numbers of answered requests by kind.
type Kinds map[string]uint64

// round sends the load once and keeps the result.
func (s *subject) round(ctx context.Context, l load.Load) error {
	sample, err := s.measure(ctx, l)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	s.samples = append(s.samples, sample)
	return nil
}

func (s *subject) measure(ctx context.Context, l load.Load) (Sample, error) {
	before, err := s.target.Spent(ctx, false)
	if err != nil {
		return Sample{}, err
	}
	t, err := s.client.Run(ctx, l)
	if err != nil {
		return Sample{}, err
	}
	after, err := s.target.Spent(ctx, true)
	if err != nil {
		return Sample{}, err
	}
	if t.Requests() == 0 {
		return Sample{}, errors.New("no request was answered")
	}
	return newSample(t, after.Since(before)), nil
}

func newSample(t *load.Tally, used server.Spent) Sample {
	all, n := t.All(), float64(t.Requests())
	s := Sample{
		Requests: t.Requests(), PerSecond: n / t.Wall.Seconds(),
		P50: micros(all.Quantile(.5)), P99: micros(all.Quantile(.99)), P999: micros(all.Quantile(.999)),
		CPU: micros(used.CPU) / n, StoreCPU: micros(used.StoreCPU) / n, Ops: float64(used.Ops) / n,
		Allocs: float64(used.Mallocs) / n, Bytes: float64(used.Bytes) / n,
		Memory: used.Memory, Store: used.Store, Sent: make(Kinds),
	}
	for k := range t.By {
		if c := t.By[k].Count(); c > 0 {
			s.Sent[load.Kind(k).String()] = c
		}
	}
	return s
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// middle returns a sample whose every number is the median over the rounds.
func (s *subject) middle() Sample {
	of := func(f func(*Sample) float64) float64 {
		all := make([]float64, len(s.samples))
		for i := range s.samples {
			all[i] = f(&s.samples[i])
		}
		return spreadOf(all).Median
	}
	return Sample{
		Requests:  uint64(of(func(s *Sample) float64 { return float64(s.Requests) })),
		PerSecond: of(func(s *Sample) float64 { return s.PerSecond }),
		P50:       of(func(s *Sample) float64 { return s.P50 }),
		P99:       of(func(s *Sample) float64 { return s.P99 }),
		P999:      of(func(s *Sample) float64 { return s.P999 }),
		CPU:       of(func(s *Sample) float64 { return s.CPU }),
		Allocs:    of(func(s *Sample) float64 { return s.Allocs }),
		Bytes:     of(func(s *Sample) float64 { return s.Bytes }),
		Ops:       of(func(s *Sample) float64 { return s.Ops }),
		StoreCPU:  of(func(s *Sample) float64 { return s.StoreCPU }),
		Memory:    int64(of(func(s *Sample) float64 { return float64(s.Memory) })),
		Store:     int64(of(func(s *Sample) float64 { return float64(s.Store) })),
		Sent:      s.samples[len(s.samples)-1].Sent,
	}
}

func (s *subject) Stop() error {
	if s.client != nil {
		s.client.Close()
	}
	if s.target == nil {
		return nil
	}
	return s.target.Stop()
}
