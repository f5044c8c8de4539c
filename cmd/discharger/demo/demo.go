// Package demo has the command demo, which plays the life of a session over HTTP: a
// homeserver, a client and a thief at a service with a temporary store. A step whose
// answer is not the expected one ends it with an error.
package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/serve"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
)

// Command returns the command "demo".
func Command() command.Command {
	return command.Command{
		Name: "demo", Short: "Play the life of a session, step by step. Needs nothing.",
		Example: "discharger demo",
		Long: "Starts the service on a free port and a temporary store, and plays a homeserver, a\n" +
			"client and a thief over real HTTP. Exit code 1 if anything goes other than it should.",
		Setup: command.NoFlags(demo),
	}
}

// clock is a clock that the demo turns forward instead of waiting.
type clock struct {
	real  func() time.Time
	ahead atomic.Int64
}

func (c *clock) now() time.Time          { return c.real().Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

// demo sets up the stage, and removes it afterwards.
func demo(ctx context.Context, t *command.Terminal, _ []string) (err error) {
	dir, err := os.MkdirTemp("", "discharger-demo-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	c := &clock{real: t.Now}
	cfg := config.Default()
	cfg.Listen, cfg.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.DataDir = filepath.Join(dir, "data")
	d, home, err := serve.Stage(ctx, cfg, c.now)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Stop()) }()

	h, err := setup.Homeserver(home, c.now)
	if err != nil {
		return err
	}
	web, err := serveDemoHomeserver(ctx, h)
	if err != nil {
		return err
	}
	defer web.Close()
	p := &play{out: t.Out, clock: c, service: home.Peer.Service, homeserver: web.url, ttl: cfg.Discharge.TTL}
	return p.run(ctx)
}
