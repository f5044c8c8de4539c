// Package setup reads the configuration of a command and the key files that the
// configuration names.
//
// A missing key file is made only where no session can depend on a lost one: the
// store, or the gateway's file, shows that there were keys. Processes that share a
// Redis never make keys, since they need the same ones. Errors match
// [command.ErrConfig] if the operator has to change a file.
package setup

import (
	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/config"
)

// DefaultService is the URL of a service with the default configuration.
const DefaultService = "http://127.0.0.1:8090"

// ConfigFlags declares the flag for the configuration file.
func ConfigFlags(t *command.Terminal, f *flag.FlagSet) *config.Options {
	o := &config.Options{LookupEnv: t.LookupEnv, Flags: make(map[string]string)}
	f.StringVar(&o.File, "config", t.Env("DISCHARGER_CONFIG", ""), "configuration `file`; or $DISCHARGER_CONFIG")
	return o
}

// Setting returns the setter of a flag that overrides a key of the configuration.
func Setting(o **config.Options, key string) func(string) error {
	return func(text string) error {
		(*o).Flags[key] = text
		return nil
	}
}

// LoadConfig reads the configuration. A missing file is an error.
func LoadConfig(o *config.Options) (*config.Config, error) {
	cfg, err := config.Load(*o)
	return cfg, command.Mark(err, command.ErrConfig)
}
