// Package setup reads the configuration of a command and the key files that the
// configuration names.
//
// A missing key file is made only where no session can depend on a lost one: the
// store, or the gateway's file, shows that there were keys. Processes that share a
// Redis never make keys, since they need the same ones. Errors match
// [command.ErrConfig] if the operator has to change a file.
package setup

import (
	"fmt"
	"os"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/secevent"
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
func Setting(o *config.Options, key string) func(string) error {
	return func(text string) error {
		o.Flags[key] = text
		return nil
	}
}

// LoadConfig reads the configuration. A missing file is an error.
func LoadConfig(o *config.Options) (*config.Config, error) {
	cfg, err := config.Load(*o)
	return cfg, command.Mark(err, command.ErrConfig)
}

// DataDir makes the directory for keys and sessions if it is missing.
func DataDir(cfg *config.Config) error {
	if _, err := os.Stat(cfg.DataDir); err == nil {
		return nil
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	return nil
}

// Homeserver returns a homeserver with the keys of a ring.
func Homeserver(ring *keyfile.Ring, now func() time.Time) (*homeserver.Homeserver, error) {
	return homeserver.New(homeserver.ConfigFromRing(ring).WithClock(now))
}

// Opener returns an opener of caveats with the service's keys and all keys of the
// configured homeservers.
func Opener(cfg *config.Config, keys *keyfile.Ring) (*caveat.Opener, error) {
	var oc caveat.OpenerConfig
	for _, k := range keys.Of(keyfile.Discharger) {
		oc.Keys = append(oc.Keys, k.Pair())
	}
	for _, k := range keys.RetiredOf(keyfile.Discharger) {
		oc.Retired = append(oc.Retired, k.ID)
	}
	for _, h := range cfg.Homeservers {
		for _, key := range h.RetiredKeys {
			oc.Homeservers = append(oc.Homeservers, caveat.Homeserver{Name: h.Name, Key: key, Retired: true})
		}
		for _, key := range append([]caveat.PublicKey{h.PublicKey}, h.PreviousKeys...) {
			oc.Homeservers = append(oc.Homeservers, caveat.Homeserver{Name: h.Name, Key: key})
		}
	}
	opener, err := caveat.NewOpener(oc)
	return opener, command.Mark(err, command.ErrConfig)
}

// Receivers returns the receivers of security events, with that of the gateway.
func Receivers(cfg *config.Config) (all []secevent.Receiver) {
	add := func(name string, e *config.SecurityEvents) {
		if e != nil {
			all = append(all, secevent.Receiver{Homeserver: name, URL: e.URL, Audience: e.Audience, Authorization: e.Authorization})
		}
	}
	for _, h := range cfg.Homeservers {
		add(h.Name, h.SecurityEvents)
	}
	if g := cfg.Gateway; g != nil {
		add(g.Name, g.SecurityEvents)
	}
	return all
}
