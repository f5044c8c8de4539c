package setup

import (
	"errors"
	"fmt"
	"strings"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/config"
)

// KeyFiles returns the key files that a configuration needs.
func KeyFiles(cfg *config.Config) []string {
	files := []string{cfg.KeyFile()}
	if cfg.Gateway != nil {
		files = append(files, cfg.GatewayKeyFile())
	}
	if cfg.HasReceivers() {
		files = append(files, cfg.SigningFile())
	}
	return files
}

// errSharedKeys is matched by errors about missing keys that processes share.
var errSharedKeys = errors.New("processes that share a Redis need the same key files")

// noSharedKeys returns the error of a missing file that processes share.
func noSharedKeys(path string) error {
	return command.Mark(fmt.Errorf("no keys in %s: %w", path, errSharedKeys), command.ErrConfig)
}

// ExplainKeys adds to an error about missing keys the command that makes them.
func ExplainKeys(err error, cfg *config.Config, o *config.Options) error {
	if !errors.Is(err, errSharedKeys) {
		return err
	}
	return fmt.Errorf("%w. Make them once with\n\n    %s\n\nand give every process a copy of %s",
		err, InitCommand(o), strings.Join(KeyFiles(cfg), ", "))
}

// InitCommand returns the command line that makes the key files of a configuration.
func InitCommand(o *config.Options) string {
	if o.File == "" {
		return "discharger keys init"
	}
	return "discharger keys init --config " + o.File
}
