package keys

import (
	"context"
	"slices"
	"strings"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
)

func initCommand() command.Command {
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
	if err := setup.DataDir(cfg); err != nil {
		return err
	}
	keys, err := initFile(t, setup.ServiceFile(cfg, t.Now()))
	if err != nil {
		return err
	}
	if cfg.Gateway != nil {
		ring, err := initFile(t, setup.GatewayFile(cfg, keys, t.Now()))
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(keys.Of(keyfile.Discharger), func(k keyfile.Key) bool { return k.Public == ring.Peer.ServiceKey }) {
			t.Say("%s has the public key of another service, which a gateway beside the service would use; to store this one's there:\n"+
				"discharger keys service --service-key %s %[1]s", cfg.GatewayKeyFile(), keys.Of(keyfile.Discharger)[0].Public)
		}
	}
	if cfg.HasReceivers() {
		if _, err := initFile(t, setup.SigningFile(cfg)); err != nil {
			return err
		}
	}
	if cfg.Store.Redis != nil {
		t.Say("every process that shares this Redis needs a copy of %s", strings.Join(setup.KeyFiles(cfg), ", "))
	}
	return nil
}

// initFile makes one key file unless it exists.
func initFile[K any](t *command.Terminal, file *setup.KeyFile[K]) (K, error) {
	keys, made, err := file.LoadOrMake(nil)
	switch {
	case made:
		t.Say("made %s", file.Path)
	case err == nil:
		t.Say("%s exists, unchanged", file.Path)
	}
	return keys, err
}
