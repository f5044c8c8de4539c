package setup

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/httpd"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/secevent"
)

// HomeserverKeys reads a key file of a homeserver.
func HomeserverKeys(path string) (*keyfile.Ring, error) {
	return load(path, keyfile.OwnerOnly, keyfile.Homeserver)
}

// GatewayKeys reads the gateway's keys.
func GatewayKeys(cfg *config.Config) (*keyfile.Ring, error) {
	return load(cfg.GatewayKeyFile(), keyfile.Access(cfg.Keys.GroupReadable), keyfile.Homeserver)
}

// Keys reads the service's keys.
func Keys(cfg *config.Config) (*keyfile.Ring, error) {
	return load(cfg.KeyFile(), keyfile.Access(cfg.Keys.GroupReadable), keyfile.Service)
}

func load(path string, a keyfile.Access, owner keyfile.Owner) (*keyfile.Ring, error) {
	ring, err := keyfile.Load(path, a)
	if err == nil && ring.Owner != owner {
		err = fmt.Errorf("key file %s: its keys are those of a %s", path, ring.Owner)
	}
	return ring, command.Mark(err, command.ErrConfig)
}

// Signing reads the keys that sign security events.
func Signing(cfg *config.Config) (*secevent.Keys, error) {
	read, err := keyfile.LoadSigning(cfg.SigningFile(), keyfile.Access(cfg.Keys.GroupReadable))
	if err != nil {
		return nil, command.Mark(err, command.ErrConfig)
	}
	keys, err := secevent.NewKeys(read)
	return keys, command.Mark(err, command.ErrConfig)
}

// KeyFile is a key file of the configuration that can be made if it is missing.
type KeyFile[K any] struct {
	Path string
	load func() (K, error)
	make func() error

	// A process with keys has made the file trace. The keys of another file would have
	// the consequence.
	trace, process, consequence string
}

// LoadOrMake reads the file. If it is missing, it returns refusal, or makes the file if
// refusal is nil and there is no trace of earlier keys.
func (k *KeyFile[K]) LoadOrMake(refusal error) (keys K, made bool, err error) {
	keys, err = k.load()
	if !errors.Is(err, fs.ErrNotExist) {
		return keys, false, err
	}
	if _, err := os.Stat(k.trace); err == nil {
		return keys, false, command.Mark(fmt.Errorf("no keys in %s, but %s was made by a %s with keys: "+
			"restore the key file, or remove %[2]s to %[4]s", k.Path, k.trace, k.process, k.consequence), command.ErrConfig)
	}
	if refusal != nil {
		return keys, false, refusal
	}
	if err = k.make(); err != nil && !errors.Is(err, fs.ErrExist) { // another process may have made it meanwhile
		return keys, false, err
	}
	made = err == nil
	keys, err = k.load()
	return keys, made, err
}

// orNew is [KeyFile.LoadOrMake] with a line in the log.
func (k *KeyFile[K]) orNew(refusal error, log *slog.Logger, message string) (keys K, made bool, err error) {
	keys, made, err = k.LoadOrMake(refusal)
	if made {
		log.Info(message, slog.String("file", k.Path), slog.String("mode", "0600"))
	}
	return keys, made, err
}

// ServiceFile returns the service's key file.
func ServiceFile(cfg *config.Config, now time.Time) *KeyFile[*keyfile.Ring] {
	return &KeyFile[*keyfile.Ring]{
		Path: cfg.KeyFile(), trace: MarkerFile(cfg), process: "service", consequence: "end all sessions",
		load: func() (*keyfile.Ring, error) { return Keys(cfg) },
		make: func() error {
			ring, err := keyfile.NewService(now)
			if err != nil {
				return err
			}
			return keyfile.Create(cfg.KeyFile(), ring)
		},
	}
}

// KeysOrNew reads the service's keys. If they are missing and the data directory is not
// that of an earlier service, it makes them.
func KeysOrNew(cfg *config.Config, now time.Time, log *slog.Logger) (ring *keyfile.Ring, made bool, err error) {
	return ServiceFile(cfg, now).orNew(noSharedKeys(cfg, cfg.KeyFile()), log, "made keys")
}

// GatewayFile returns the key file of the gateway beside a service with keys.
func GatewayFile(cfg *config.Config, keys *keyfile.Ring, now time.Time) *KeyFile[*keyfile.Ring] {
	return &KeyFile[*keyfile.Ring]{
		Path: cfg.GatewayKeyFile(), trace: cfg.GatewayOutboxFile(), process: "gateway", consequence: "log out every client",
		load: func() (*keyfile.Ring, error) { return GatewayKeys(cfg) },
		make: func() error {
			service := cmp.Or(cfg.PublicURL, "http://"+httpd.Dialable(cfg.Listen))
			p := keyfile.Peer{Name: cfg.Gateway.Name, Service: service, ServiceKey: keys.Of(keyfile.Discharger)[0].Public}
			ring, err := keyfile.NewHomeserver(p, now)
			if err != nil {
				return err
			}
			return keyfile.Create(cfg.GatewayKeyFile(), ring)
		},
	}
}

// GatewayKeysOrNew reads the gateway's keys. If the default file is missing, and the
// data directory is not that of an earlier gateway, it makes them.
func GatewayKeysOrNew(cfg *config.Config, keys *keyfile.Ring, now time.Time, log *slog.Logger) (*keyfile.Ring, error) {
	refusal := noSharedKeys(cfg, cfg.GatewayKeyFile())
	if refusal == nil && cfg.Gateway.KeysFile != "" {
		_, refusal = GatewayKeys(cfg) // a configured file is never made
	}
	ring, _, err := GatewayFile(cfg, keys, now).orNew(refusal, log, "made gateway keys")
	return ring, err
}

// SigningFile returns the file with the keys that sign security events.
func SigningFile(cfg *config.Config) *KeyFile[*secevent.Keys] {
	return &KeyFile[*secevent.Keys]{
		Path: cfg.SigningFile(),
		load: func() (*secevent.Keys, error) { return Signing(cfg) },
		make: func() error {
			_, err := keyfile.NewSigning(cfg.SigningFile())
			return err
		},
	}
}

// SigningOrNew reads the keys that sign security events, and makes one if the file is
// missing; nil: no receiver is configured. A new key is harmless, since receivers fetch
// the public keys.
func SigningOrNew(cfg *config.Config, log *slog.Logger) (*secevent.Keys, error) {
	if !cfg.HasReceivers() {
		return nil, nil
	}
	keys, _, err := SigningFile(cfg).orNew(NoSharedSigning(cfg), log, "made signing key for security events")
	return keys, err
}

// MarkerFile returns the file with the id of the store that belongs to the service.
func MarkerFile(cfg *config.Config) string { return filepath.Join(cfg.DataDir, "store.id") }

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

// noSharedKeys returns the error of a missing file that processes share; nil: they do
// not share one.
func noSharedKeys(cfg *config.Config, path string) error {
	if cfg.Store.Redis == nil {
		return nil
	}
	return command.Mark(fmt.Errorf("no keys in %s: %w", path, errSharedKeys), command.ErrConfig)
}

// NoSharedSigning returns the error of a missing file of signing keys that processes
// share; nil: they do not share one.
func NoSharedSigning(cfg *config.Config) error {
	err := noSharedKeys(cfg, cfg.SigningFile())
	if err != nil {
		err = fmt.Errorf("security events cannot be signed: %w", err)
	}
	return err
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
