package measure

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// measured is a server that tells what it has used.
type measured interface {
	spent(ctx context.Context, first bool) (spent, error)
	stop() error
}

// subject is a server with the load that it gets.
type subject struct {
	name    string
	target  measured
	client  *client
	samples []Sample
}

// Sample is one round, or the middle of several. What is not known is zero.
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

// Kinds is how many requests of each kind were answered.
type Kinds map[string]uint64

// round puts the load on the server once and notes what came of it.
func (s *subject) round(ctx context.Context, l Load) error {
	sample, err := s.measure(ctx, l)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	s.samples = append(s.samples, sample)
	return nil
}

func (s *subject) measure(ctx context.Context, l Load) (Sample, error) {
	before, err := s.target.spent(ctx, false)
	if err != nil {
		return Sample{}, err
	}
	t, err := s.client.run(ctx, l)
	if err != nil {
		return Sample{}, err
	}
	after, err := s.target.spent(ctx, true)
	if err != nil {
		return Sample{}, err
	}
	if t.requests() == 0 {
		return Sample{}, errors.New("no request was answered")
	}
	return newSample(t, after.since(before)), nil
}

func newSample(t *tally, used spent) Sample {
	all, n := t.all(), float64(t.requests())
	s := Sample{
		Requests: t.requests(), PerSecond: n / t.wall.Seconds(),
		P50: micros(all.Quantile(.5)), P99: micros(all.Quantile(.99)), P999: micros(all.Quantile(.999)),
		CPU: micros(used.cpu) / n, StoreCPU: micros(used.storeCPU) / n, Ops: float64(used.ops) / n,
		Allocs: float64(used.mallocs) / n, Bytes: float64(used.bytes) / n,
		Memory: used.memory, Store: used.store, Sent: make(Kinds),
	}
	for k := range t.by {
		if c := t.by[k].Count(); c > 0 {
			s.Sent[kindNames[k]] = c
		}
	}
	return s
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// middle is a sample whose every number is the median of the rounds'.
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

func (s *subject) stop() error {
	var err error
	if s.client != nil {
		err = s.client.close()
	}
	if s.target != nil {
		err = errors.Join(err, s.target.stop())
	}
	return err
}
