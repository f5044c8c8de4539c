package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
)

func keysInitCommand() command {
	return command{
		name: "keys init", args: "[--config <file>]", about: "Make every key file that a configuration needs.",
		more: `
Makes the key files that "serve" would make by itself with the store in one file:
the service's, the gateway's if there is a section gateway, and the one that signs
security events if there are receivers. Files that are there stay as they are.

Processes that share a Redis need the same key files: run this once, and copy the
files to each of them.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			options := configFlags(t, f)
			return func(context.Context, []string) error { return initKeys(t, options) }
		},
	}
}

// initKeys makes the key files that are missing.
func initKeys(t *terminal, o *config.Options) error {
	cfg, err := loadConfig(o)
	if err != nil {
		return err
	}
	if _, err := prepareDataDir(cfg); err != nil {
		return err
	}
	keys, err := initFile(t, cfg.KeyFile(), markerFile(cfg), func() (*keyfile.Ring, error) { return loadKeys(cfg) },
		func() (*keyfile.Ring, error) { return keyfile.NewService(t.now(), nil) })
	if err != nil {
		return err
	}
	if cfg.Gateway != nil {
		p := gatewayPeer(cfg, keys)
		ring, err := initFile(t, cfg.GatewayKeyFile(), cfg.GatewayVaultFile(), func() (*keyfile.Ring, error) { return gatewayKeys(cfg) },
			func() (*keyfile.Ring, error) { return keyfile.NewHomeserver(p, t.now(), nil) })
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(keys.Of(keyfile.Discharger), func(k keyfile.Key) bool { return k.Public == ring.Peer.ServiceKey }) {
			t.say("%s has the public key of another service, which counts in a gateway of its own; to store this one's there:\n"+
				"discharger keys service --service-key %s %[1]s", cfg.GatewayKeyFile(), p.ServiceKey)
		}
	}
	if err := initSigning(t, cfg); err != nil {
		return err
	}
	if cfg.Store.Redis != nil {
		t.say("every process that shares this Redis needs a copy of %s", strings.Join(keyFiles(cfg), ", "))
	}
	return nil
}

// initFile makes one key file, unless it is there. It refuses if a file shows that
// there were keys before: sessions that were made with them could not go on.
func initFile(t *terminal, path, trace string, load, make func() (*keyfile.Ring, error)) (*keyfile.Ring, error) {
	ring, err := load()
	if err == nil {
		t.say("%s is there already, and stays", path)
		return ring, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if _, err := os.Stat(trace); err == nil {
		return nil, mark(fmt.Errorf("no keys in %s, but %s was made by a process that had some: restore the key file, "+
			"or remove %[2]s to begin anew, with every session ended", path, trace), errConfig)
	}
	if ring, err = make(); err != nil {
		return nil, err
	}
	if err := keyfile.Create(path, ring); err != nil {
		return nil, err
	}
	t.say("made %s", path)
	return ring, nil
}

func initSigning(t *terminal, cfg *config.Config) error {
	if !cfg.HasReceivers() {
		return nil
	}
	path := cfg.SigningFile()
	_, err := loadSigning(cfg)
	switch {
	case err == nil:
		t.say("%s is there already, and stays", path)
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if _, err := keyfile.NewSigning(path); err != nil {
		return err
	}
	t.say("made %s", path)
	return nil
}

// keyFiles are the key files that a configuration needs.
func keyFiles(cfg *config.Config) []string {
	files := []string{cfg.KeyFile()}
	if cfg.Gateway != nil {
		files = append(files, cfg.GatewayKeyFile())
	}
	if cfg.HasReceivers() {
		files = append(files, cfg.SigningFile())
	}
	return files
}

// errSharedKeys is matched by errors of a start that lacks keys which processes
// share, and which therefore are not made by each.
var errSharedKeys = errors.New("processes that share a Redis need the same key files")

// noSharedKeys is such an error. Its text names the command that makes all files.
func noSharedKeys(path string) error {
	return mark(fmt.Errorf("no keys in %s: %w", path, errSharedKeys), errConfig)
}

// explainKeys adds to an error about missing keys the command that makes them.
func explainKeys(err error, cfg *config.Config, o *config.Options) error {
	if !errors.Is(err, errSharedKeys) {
		return err
	}
	return fmt.Errorf("%w. Make them once with\n\n    %s\n\nand give every process a copy of %s",
		err, initCommand(o), strings.Join(keyFiles(cfg), ", "))
}

// initCommand is the command that makes the key files of a configuration.
func initCommand(o *config.Options) string {
	if o.File == "" {
		return "discharger keys init"
	}
	return "discharger keys init --config " + o.File
}
