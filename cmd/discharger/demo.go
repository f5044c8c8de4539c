package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
)

func demoCommand() command {
	return command{
		name: "demo", about: "Show the whole life of a session, step by step. Needs nothing.",
		more: "Starts the service on a free port and a temporary store, and plays a homeserver, a\n" +
			"client and a thief over real HTTP. Exit code 1 if anything goes other than it should.",
		setup: func(t *terminal, _ *flag.FlagSet) action {
			return func(ctx context.Context, _ []string) error {
				return demo(ctx, t)
			}
		},
	}
}

// clock is a clock that can be turned forward, so that nobody has to wait.
type clock struct {
	real  func() time.Time
	ahead atomic.Int64
}

func (c *clock) now() time.Time          { return c.real().Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

// demo sets up the stage, and removes it afterwards.
func demo(ctx context.Context, t *terminal) (err error) {
	dir, err := os.MkdirTemp("", "discharger-demo-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	c := &clock{real: t.now}
	cfg := config.Default()
	cfg.Listen, cfg.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.DataDir = filepath.Join(dir, "data")
	d := &daemon{cfg: cfg, log: slog.New(slog.DiscardHandler), t: &terminal{now: c.now}}
	home, err := d.stage(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()

	h, err := newHomeserver(home, c.now)
	if err != nil {
		return err
	}
	web, err := serveDemoHomeserver(ctx, h)
	if err != nil {
		return err
	}
	defer web.Close()
	p := &play{out: t.out, clock: c, service: d.listeners.url(cfg), homeserver: web.url, ttl: cfg.Discharge.TTL}
	return p.run(ctx)
}

// stage starts the service with one homeserver, whose keys it returns.
func (d *daemon) stage(ctx context.Context) (home *keyfile.Ring, err error) {
	if _, err := prepareDataDir(d.cfg); err != nil {
		return nil, err
	}
	if d.keys, _, err = loadOrMakeKeys(d.cfg, d.t.now()); err != nil {
		return nil, err
	}
	if d.parts, err = open(ctx, d.cfg, d.keys, d.log, d.t.now); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.parts.store.Close())
		}
	}()
	l, err := listen(ctx, d.cfg, nil)
	if err != nil {
		return nil, err
	}
	home, err = keyfile.NewHomeserver(keyfile.Peer{
		Name: "example.org", Service: l.url(d.cfg), ServiceKey: d.keys.Of(keyfile.Discharger)[0].Public,
	}, d.t.now(), nil)
	if err != nil {
		return nil, errors.Join(err, l.client.Close(), l.operators.Close())
	}
	d.cfg.Homeservers = []config.Homeserver{{Name: home.Peer.Name, PublicKey: home.Of(keyfile.Seal)[0].Public}}
	if d.rules, err = d.parts.rules.make(d.cfg, ""); err != nil {
		return nil, errors.Join(err, l.client.Close(), l.operators.Close())
	}
	srv, err := d.parts.server(d.cfg, d.keys, d.rules, nil)
	if err != nil {
		return nil, errors.Join(err, l.client.Close(), l.operators.Close())
	}
	d.parts.rules.begin(d.rules)
	d.listeners = l
	l.serve(srv, d.log)
	return home, nil
}
