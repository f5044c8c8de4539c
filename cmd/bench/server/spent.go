package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/discharger/discharger/cmd/bench/reference"
	"github.com/discharger/discharger/discharger/wire"
)

// Spent is the use of resources by a server since it started. Unknown numbers are
// zero.
type Spent struct {
	CPU      time.Duration
	StoreCPU time.Duration
	Ops      uint64 // of the store: round trips, or transactions
	Mallocs  uint64
	Bytes    uint64 // allocated
	Memory   int64  // resident now
	Store    int64  // memory of Redis now
}

// Since returns the difference to an earlier reading.
func (s Spent) Since(before Spent) Spent {
	s.CPU -= before.CPU
	s.StoreCPU -= before.StoreCPU
	s.Ops -= before.Ops
	s.Mallocs -= before.Mallocs
	s.Bytes -= before.Bytes
	return s
}

// Spent reads the service's metrics. It reads the processor time as close to the
// load as possible: last before the load, and with after set, first.
func (s *Service) Spent(ctx context.Context, after bool) (sp Spent, err error) {
	cpu := func() {
		if err == nil {
			var u Usage
			u, err = s.Usage()
			sp.CPU, sp.Memory = u.CPU, u.Memory
		}
	}
	if after {
		cpu()
	}
	if err == nil {
		err = readMetrics(ctx, s.Admin, map[string]func(float64){
			"go_memstats_mallocs_total":     func(v float64) { sp.Mallocs = uint64(v) },
			"go_memstats_alloc_bytes_total": func(v float64) { sp.Bytes = uint64(v) },
			metricStore:                     func(v float64) { sp.Ops += uint64(v) },
		})
	}
	if s.redis != nil && err == nil {
		if sp.Store, err = s.redis.memory(); err == nil {
			var u Usage
			u, err = s.redis.Usage()
			sp.StoreCPU = u.CPU
		}
	}
	if !after {
		cpu()
	}
	return sp, err
}

// metricStore counts the operations of the store. Each is one round trip to
// Redis or one transaction on the file.
const metricStore = "discharger_store_seconds_count"

// readMetrics calls the function of each name for its samples, with any labels.
// Only metricStore may have none: it has one for each operation that occurred.
func readMetrics(ctx context.Context, addr string, want map[string]func(float64)) error {
	resp, err := get(ctx, "http://"+addr+wire.PathMetrics)
	if err != nil {
		return fmt.Errorf("read metrics: %w", err)
	}
	defer resp.Body.Close()
	found := map[string]bool{metricStore: true}
	in := bufio.NewScanner(resp.Body)
	for in.Scan() {
		name, text, _ := strings.Cut(in.Text(), " ")
		name, _, _ = strings.Cut(name, "{")
		set, ok := want[name]
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("read metrics: %w", err)
		}
		set(v)
		found[name] = true
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("read metrics: %w", err)
	}
	for name := range want {
		if !found[name] {
			return fmt.Errorf("read metrics: %s is missing", name)
		}
	}
	return nil
}

func get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: status %s", url, resp.Status)
	}
	return resp, nil
}

// Spent reads the memory that the reference reports.
func (r *Reference) Spent(ctx context.Context, after bool) (sp Spent, err error) {
	var u Usage
	if after {
		if u, err = r.Usage(); err != nil {
			return sp, err
		}
	}
	resp, err := get(ctx, "http://"+r.Hello.Addr+reference.PathMemory)
	if err != nil {
		return sp, err
	}
	defer resp.Body.Close()
	var m reference.Memory
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
		return sp, fmt.Errorf("read memory of the reference: %w", err)
	}
	if !after {
		u, err = r.Usage()
	}
	return Spent{CPU: u.CPU, Memory: u.Memory, Mallocs: m.Mallocs, Bytes: m.Bytes}, err
}

// Remote is a running service that this program did not start.
type Remote struct {
	Admin string // host:port of its metrics; "": unknown
}

// Spent reads the service's metrics.
func (r *Remote) Spent(ctx context.Context, _ bool) (sp Spent, err error) {
	if r.Admin == "" {
		return sp, nil
	}
	err = readMetrics(ctx, r.Admin, map[string]func(float64){
		"go_memstats_mallocs_total":     func(v float64) { sp.Mallocs = uint64(v) },
		"go_memstats_alloc_bytes_total": func(v float64) { sp.Bytes = uint64(v) },
		metricStore:                     func(v float64) { sp.Ops += uint64(v) },
		"process_cpu_seconds_total":     func(v float64) { sp.CPU = time.Duration(v * float64(time.Second)) },
		"process_resident_memory_bytes": func(v float64) { sp.Memory = int64(v) },
	})
	return sp, err
}

// Stop does nothing.
func (r *Remote) Stop() error { return nil }
