package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/discharger/discharger/discharger/wire"
)

func healthCommand() command {
	return command{
		name: "health", args: "[flags]", about: "Ask a running service how it is.",
		more: "Asks at admin_listen, as configured. Exit code 3: not well, or nobody there.",
		setup: func(t *terminal, f *flag.FlagSet) action {
			options := configFlags(t, f)
			address := f.String("address", "", "`host:port` to ask at, instead of what is configured")
			ready := f.Bool("ready", false, "ask whether it can serve now, not only whether it runs")
			timeout := f.Duration("timeout", 2*time.Second, "how `long` to wait for the answer")
			return func(ctx context.Context, _ []string) error {
				ctx, cancel := context.WithTimeout(ctx, *timeout)
				defer cancel()
				if *address == "" {
					cfg, err := loadConfig(options)
					if err != nil {
						return err
					}
					*address = dialable(cfg.AdminListen)
				}
				path := wire.PathHealth
				if *ready {
					path = wire.PathReady
				}
				return mark(health(ctx, t, "http://"+*address+path), errUnavailable)
			}
		},
	}
}

// dialable is where an address to listen at is reached from here: all
// interfaces are reached by the loopback too.
func dialable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

func health(ctx context.Context, t *terminal, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", url, resp.Status, quoted(string(body)))
	}
	_, err = fmt.Fprintln(t.out, "ok")
	return err
}
