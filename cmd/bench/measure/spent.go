package measure

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
	"github.com/discharger/discharger/discharger/api"
)

// spent is what something that is measured has used since it started. What is
// not known is zero.
type spent struct {
	cpu      time.Duration
	storeCPU time.Duration
	ops      uint64 // of the store: round trips, or transactions
	mallocs  uint64
	bytes    uint64 // allocated
	memory   int64  // resident now
	store    int64  // memory of Redis now
}

func (s spent) since(before spent) spent {
	s.cpu -= before.cpu
	s.storeCPU -= before.storeCPU
	s.ops -= before.ops
	s.mallocs -= before.mallocs
	s.bytes -= before.bytes
	return s
}

// spent asks a service of our own. The processor time is read as close to the
// load as can be: last before it, and with first set, first after it.
func (s *service) spent(ctx context.Context, first bool) (sp spent, err error) {
	cpu := func() {
		if err == nil {
			var u usage
			u, err = s.usage()
			sp.cpu, sp.memory = u.cpu, u.memory
		}
	}
	if first {
		cpu()
	}
	if err == nil {
		err = readMetrics(ctx, s.admin, map[string]func(float64){
			"go_memstats_mallocs_total":     func(v float64) { sp.mallocs = uint64(v) },
			"go_memstats_alloc_bytes_total": func(v float64) { sp.bytes = uint64(v) },
			metricStore:                     func(v float64) { sp.ops += uint64(v) },
		})
	}
	if s.redis != nil && err == nil {
		if sp.store, err = s.redis.memory(); err == nil {
			var u usage
			u, err = s.redis.usage()
			sp.storeCPU = u.cpu
		}
	}
	if !first {
		cpu()
	}
	return sp, err
}

// metricStore counts the operations of the store. Each is one round trip to
// Redis or one transaction on the file.
const metricStore = "discharger_store_seconds_count"

// readMetrics calls the functions for the samples of their names, with any
// labels. Only metricStore may have none: it has one for each operation that
// there was.
func readMetrics(ctx context.Context, addr string, want map[string]func(float64)) error {
	resp, err := get(ctx, "http://"+addr+api.PathMetrics)
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
			return fmt.Errorf("read metrics: %s is not there", name)
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

// spent asks a reference.
func (r *referenceServer) spent(ctx context.Context, first bool) (sp spent, err error) {
	var u usage
	if first {
		if u, err = r.usage(); err != nil {
			return sp, err
		}
	}
	resp, err := get(ctx, "http://"+r.hello.Addr+reference.PathMemory)
	if err != nil {
		return sp, err
	}
	defer resp.Body.Close()
	var m reference.Memory
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
		return sp, fmt.Errorf("ask reference: %w", err)
	}
	if !first {
		u, err = r.usage()
	}
	return spent{cpu: u.cpu, memory: u.memory, mallocs: m.Mallocs, bytes: m.Bytes}, err
}

// remote is a service that someone else runs.
type remote struct {
	admin string // "": nothing is known
}

func (r *remote) spent(ctx context.Context, _ bool) (sp spent, err error) {
	if r.admin == "" {
		return sp, nil
	}
	err = readMetrics(ctx, r.admin, map[string]func(float64){
		"go_memstats_mallocs_total":     func(v float64) { sp.mallocs = uint64(v) },
		"go_memstats_alloc_bytes_total": func(v float64) { sp.bytes = uint64(v) },
		metricStore:                     func(v float64) { sp.ops += uint64(v) },
		"process_cpu_seconds_total":     func(v float64) { sp.cpu = time.Duration(v * float64(time.Second)) },
		"process_resident_memory_bytes": func(v float64) { sp.memory = int64(v) },
	})
	return sp, err
}

func (r *remote) stop() error { return nil }
