package measure

import (
	"context"
	"errors"

	"github.com/discharger/discharger/cmd/bench/reference"
	"github.com/discharger/discharger/cmd/bench/server"
	"github.com/discharger/discharger/cmd/bench/workload"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
)

// verify measures the verification of a bundle by a homeserver, in this process and
// without the service. Its subjects are a new bundle, a cached one, and the macaroon
// library alone.
func verify(ctx context.Context, cfg Config) (_ *Report, err error) {
	if len(cfg.Compare) > 0 || cfg.URL != "" {
		return nil, errors.New("the workload verify needs no service, and is always compared with the macaroon library")
	}
	s, err := server.Start(ctx, server.Config{Program: cfg.Program, Store: cfg.Store})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	grant, err := oneGrant(ctx, s)
	if err != nil {
		return nil, err
	}
	operations, err := verifying(ctx, s.Ring, grant)
	if err != nil {
		return nil, err
	}
	report := newReport(cfg)
	report.Connections = 0
	subjects := make([]*subject, len(operations))
	for i, o := range operations {
		subjects[i] = &subject{name: o.name}
	}
	for range cfg.Rounds {
		for i, o := range operations {
			c, err := o.measure(oneRound)
			if err != nil {
				return nil, err
			}
			subjects[i].samples = append(subjects[i].samples, Sample{
				Requests: c.Times, PerSecond: float64(c.Times) / c.Wall.Seconds(), CPU: micros(c.CPU), Allocs: c.Allocs,
			})
		}
	}
	report.finish(subjects)
	return report, nil
}

// verifying returns the three subjects: a new bundle, a cached one, and the library.
func verifying(ctx context.Context, ring *keyfile.Ring, g client.Grant) ([]operation, error) {
	bundle, err := g.Bundle()
	if err != nil {
		return nil, err
	}
	var all []operation
	for _, way := range []struct {
		name  string
		cache int
	}{{"verify", -1}, {"verify again", 0}} {
		h, err := workload.NewHomeserver(ring, ring.Peer.ServiceKey, way.cache)
		if err != nil {
			return nil, err
		}
		all = append(all, operation{way.name, func() error {
			_, err := h.Verify(ctx, bundle, homeserver.Request{})
			return err
		}})
	}
	library, err := reference.VerifyBundle(g.Macaroons())
	return append(all, operation{"macaroon.v2", library}), err
}
