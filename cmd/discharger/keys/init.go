package keys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
)

// InitCommand returns the command "keys init".
func InitCommand() command.Command {
	return command.Command{
		Name: "keys init", Args: "[--config <file>]", Short: "Make every key file that a configuration needs.",
		Example: "discharger keys init --config discharger.yaml",
		Long: `
Makes the key files that "serve" makes for a store in a file: the service's, the
gateway's if there is a section gateway, and the one that signs security events if
there are receivers. Existing files stay as they are.

Processes that share a Redis need the same key files: run this once, and copy the
files to each of them.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			options := setup.ConfigFlags(t, f)
			return func(context.Context, []string) error { return initKeys(t, options) }
		},
	}
}

// initKeys makes the key files that are missing.
func initKeys(t *command.Terminal, o *config.Options) error {
	cfg, err := setup.LoadConfig(o)
	if err != nil {
		return err
	}
	if _, err := setup.DataDir(cfg); err != nil {
		return err
	}
	keys, err := initFile(t, cfg.KeyFile(), setup.MarkerFile(cfg), func() (*keyfile.Ring, error) { return setup.Keys(cfg) },
		func() (*keyfile.Ring, error) { return keyfile.NewService(t.Now()) })
	if err != nil {
		return err
	}
	if cfg.Gateway != nil {
		p := setup.GatewayPeer(cfg, keys)
		ring, err := initFile(t, cfg.GatewayKeyFile(), cfg.GatewayOutboxFile(), func() (*keyfile.Ring, error) { return setup.GatewayKeys(cfg) },
			func() (*keyfile.Ring, error) { return keyfile.NewHomeserver(p, t.Now()) })
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(keys.Of(keyfile.Discharger), func(k keyfile.Key) bool { return k.Public == ring.Peer.ServiceKey }) {
			t.Say("%s has the public key of another service, which a gateway beside the service would use; to store this one's there:\n"+
				"discharger keys service --service-key %s %[1]s", cfg.GatewayKeyFile(), p.ServiceKey)
		}
	}
	if err := initSigning(t, cfg); err != nil {
		return err
	}
	if cfg.Store.Redis != nil {
		t.Say("every process that shares this Redis needs a copy of %s", strings.Join(setup.KeyFiles(cfg), ", "))
	}
	return nil
}

// initFile makes one key file unless it exists. It fails if the trace of an earlier
// process exists, since other keys would end its sessions.
func initFile(t *command.Terminal, path, trace string, load, make func() (*keyfile.Ring, error)) (*keyfile.Ring, error) {
	ring, err := load()
	if err == nil {
		t.Say("%s exists, unchanged", path)
		return ring, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if _, err := os.Stat(trace); err == nil {
		return nil, command.Mark(fmt.Errorf("no keys in %s, but %s was made by a process with keys: restore the key file, "+
			"or remove %[2]s to end all sessions", path, trace), command.ErrConfig)
	}
	if ring, err = make(); err != nil {
		return nil, err
	}
	if err := keyfile.Create(path, ring); err != nil {
		return nil, err
	}
	t.Say("made %s", path)
	return ring, nil
}

func initSigning(t *command.Terminal, cfg *config.Config) error {
	if !cfg.HasReceivers() {
		return nil
	}
	path := cfg.SigningFile()
	_, err := setup.Signing(cfg)
	switch {
	case err == nil:
		t.Say("%s exists, unchanged", path)
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if _, err := keyfile.NewSigning(path); err != nil {
		return err
	}
	t.Say("made %s", path)
	return nil
}
