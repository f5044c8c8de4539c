package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/httpd"
	"github.com/discharger/discharger/cmd/discharger/ruleset"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/wire"
)

func configExampleCommand() command.Command {
	return command.Command{
		Name: "config example", Short: "Print a configuration file with comments.",
		Example: "discharger config example > discharger.yaml",
		Setup: command.NoFlags(func(_ context.Context, t *command.Terminal, _ []string) error {
			_, err := fmt.Fprint(t.Out, config.Example())
			return err
		}),
	}
}

func configCheckCommand() command.Command {
	return command.Command{
		Name: "config check", Args: "[flags]", Short: "Check a configuration without starting.",
		Example: "discharger config check --config discharger.yaml",
		Long:    "Reads the files that \"serve\" reads before it opens the store: configuration, keys,\npolicies, and the files with secrets. Exit code 78: a file is unusable.",
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			options := setup.ConfigFlags(t, f)
			return func(context.Context, []string) error { return checkConfig(t, options) }
		},
	}
}

func checkConfig(t *command.Terminal, options *config.Options) error {
	cfg, err := setup.LoadConfig(options)
	if err != nil {
		return err
	}
	keys, err := setup.Keys(cfg)
	switch {
	case errors.Is(err, fs.ErrNotExist) && cfg.Store.Redis != nil:
		fmt.Fprintf(t.Out, "keys         none yet; make them once: %s\n", setup.InitCommand(options))
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintf(t.Out, "keys         none yet; the first start makes them, in %s\n", cfg.KeyFile())
	case err != nil:
		return err
	default:
		if _, err := setup.Opener(cfg, keys); err != nil {
			return err
		}
		fmt.Fprintf(t.Out, "keys         %d, in %s\n", len(keys.Keys), cfg.KeyFile())
	}
	names, err := ruleset.Check(cfg, options.File, t.Now)
	if err != nil {
		return err
	}
	store := cfg.BoltFile()
	if r := cfg.Store.Redis; r != nil {
		store = fmt.Sprintf("Redis at %v, durability %s", r.Addresses, r.Durability)
	}
	fmt.Fprintf(t.Out, "clients      %s\noperators    %s\nstore        %s\nhomeservers  %d\n",
		cfg.Listen, cfg.AdminListen, store, len(cfg.Homeservers))
	for _, h := range cfg.Homeservers {
		fmt.Fprintf(t.Out, "             %s, key %s\n", command.Quoted(h.Name), h.PublicKey)
	}
	if g := cfg.Gateway; g != nil {
		fmt.Fprintf(t.Out, "gateway      %s to %s, tokens from before: %s\n", g.Listen, g.Upstream, g.Legacy)
	}
	if err := checkReceivers(t, cfg); err != nil {
		return setup.ExplainKeys(err, cfg, options)
	}
	fmt.Fprintf(t.Out, "policies     %s\n", strings.Join(names, ", "))
	fmt.Fprintln(t.Out, "ok")
	return nil
}

// checkReceivers prints the receivers of security events, and checks the signing keys.
func checkReceivers(t *command.Terminal, cfg *config.Config) error {
	if !cfg.HasReceivers() {
		return nil
	}
	_, err := setup.Signing(cfg)
	if errors.Is(err, fs.ErrNotExist) {
		if err := setup.NoSharedSigning(cfg); err != nil {
			return err
		}
		fmt.Fprintf(t.Out, "signing keys none yet; the first start makes one, in %s\n", cfg.SigningFile())
	} else if err != nil {
		return err
	} else {
		fmt.Fprintf(t.Out, "signing keys in %s\n", cfg.SigningFile())
	}
	for _, r := range setup.Receivers(cfg) {
		fmt.Fprintf(t.Out, "events of    %s to %s\n", command.Quoted(r.Homeserver), command.Quoted(r.Audience))
	}
	return nil
}

func healthCommand() command.Command {
	return command.Command{
		Name: "health", Args: "[flags]", Short: "Print the health of a running service.",
		Example: "discharger health --config discharger.yaml --ready",
		Long:    "Calls the service at admin_listen. Exit code 3: not healthy, or no answer.",
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			options := setup.ConfigFlags(t, f)
			address := f.String("address", "", "`host:port` of the service for operators, instead of admin_listen")
			ready := f.Bool("ready", false, "check that it can answer clients, and not only that it runs")
			timeout := f.Duration("timeout", 2*time.Second, "`duration` of the wait for an answer")
			return func(ctx context.Context, _ []string) error {
				ctx, cancel := context.WithTimeout(ctx, *timeout)
				defer cancel()
				if *address == "" {
					cfg, err := setup.LoadConfig(options)
					if err != nil {
						return err
					}
					*address = httpd.Dialable(cfg.AdminListen)
				}
				path := wire.PathHealth
				if *ready {
					path = wire.PathReady
				}
				if err := httpd.Fetch(ctx, http.MethodGet, "http://"+*address+path, "", io.Discard); err != nil {
					return err
				}
				return t.Output("", "ok")
			}
		},
	}
}
