package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"strings"

	"github.com/discharger/discharger/config"
)

func configExampleCommand() command {
	return command{
		name: "config example", about: "Print a configuration file that explains itself.",
		setup: func(t *terminal, _ *flag.FlagSet) action {
			return func(context.Context, []string) error {
				_, err := fmt.Fprint(t.out, config.Example())
				return err
			}
		},
	}
}

func configCheckCommand() command {
	return command{
		name: "config check", args: "[flags]", about: "Say what is wrong with a configuration, without starting.",
		more: "Reads everything that \"serve\" reads before it opens the store: the file, the\nenvironment, the keys, the policies, and the files that secrets are in. Exit code 78: unusable.",
		setup: func(t *terminal, f *flag.FlagSet) action {
			options := configFlags(t, f)
			return func(context.Context, []string) error { return checkConfig(t, options) }
		},
	}
}

func checkConfig(t *terminal, options *config.Options) error {
	cfg, err := loadConfig(options)
	if err != nil {
		return err
	}
	keys, err := loadKeys(cfg)
	switch {
	case errors.Is(err, fs.ErrNotExist) && cfg.Store.Redis != nil:
		fmt.Fprintf(t.out, "keys         none yet; make them once: %s\n", initCommand(options))
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintf(t.out, "keys         none yet; the first start makes them, in %s\n", cfg.KeyFile())
	case err != nil:
		return err
	default:
		if _, err := newOpener(cfg, keys); err != nil {
			return mark(err, errConfig)
		}
		fmt.Fprintf(t.out, "keys         %d, in %s\n", len(keys.Keys), cfg.KeyFile())
	}
	names, err := checkRules(cfg, options.File, t.now)
	if err != nil {
		return err
	}
	store := cfg.BoltFile()
	if r := cfg.Store.Redis; r != nil {
		store = fmt.Sprintf("Redis at %v, durability %s", r.Addresses, r.Durability)
	}
	fmt.Fprintf(t.out, "clients      %s\noperators    %s\nstore        %s\nhomeservers  %d\n",
		cfg.Listen, cfg.AdminListen, store, len(cfg.Homeservers))
	for _, h := range cfg.Homeservers {
		fmt.Fprintf(t.out, "             %s, key %s\n", quoted(h.Name), h.PublicKey)
	}
	if g := cfg.Gateway; g != nil {
		fmt.Fprintf(t.out, "gateway      %s to %s, tokens from before: %s\n", g.Listen, g.Upstream, g.Legacy)
	}
	if err := checkReceivers(t, cfg); err != nil {
		return explainKeys(err, cfg, options)
	}
	fmt.Fprintf(t.out, "policies     %s\n", strings.Join(names, ", "))
	fmt.Fprintln(t.out, "ok")
	return nil
}
