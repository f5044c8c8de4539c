package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
)

// loadHomeserverKeys reads a key file of a homeserver.
func HomeserverKeys(path string) (*keyfile.Ring, error) {
	ring, err := keyfile.Load(path, keyfile.OwnerOnly)
	if err == nil && ring.Owner != keyfile.Homeserver {
		err = fmt.Errorf("key file %s: the keys in it are the %s's", path, ring.Owner)
	}
	return ring, command.Mark(err, command.ErrConfig)
}

// prepareDataDir makes the directory for keys and sessions. It reports whether
// there was none.
func DataDir(cfg *config.Config) (made bool, err error) {
	if _, err := os.Stat(cfg.DataDir); err == nil {
		return false, nil
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return false, fmt.Errorf("make data directory: %w", err)
	}
	return true, nil
}

// loadRing reads a key file that may be as open as the configuration allows.
func Ring(cfg *config.Config, file string) (*keyfile.Ring, error) {
	access := keyfile.OwnerOnly
	if cfg.Keys.GroupReadable {
		access = keyfile.GroupToo
	}
	return keyfile.Load(file, access)
}

// loadKeys reads the service's keys.
func Keys(cfg *config.Config) (*keyfile.Ring, error) {
	ring, err := Ring(cfg, cfg.KeyFile())
	if err == nil && ring.Owner != keyfile.Service {
		err = fmt.Errorf("key file %s: the keys in it are a %s's", cfg.KeyFile(), ring.Owner)
	}
	return ring, command.Mark(err, command.ErrConfig)
}

// loadOrMakeKeys reads the service's keys, and makes them first if there are
// none and never were. It reports whether it did.
func KeysOrNew(cfg *config.Config, now time.Time) (ring *keyfile.Ring, made bool, err error) {
	ring, err = Keys(cfg)
	if !errors.Is(err, fs.ErrNotExist) {
		return ring, false, err
	}
	// Keys without which sessions that are there already could not be found or
	// go on must not be replaced quietly.
	if _, err := os.Stat(MarkerFile(cfg)); err == nil {
		return nil, false, command.Mark(fmt.Errorf("there are no keys in %s, but there were: %s is from a service that had some; "+
			"restore the key file, or remove that one to begin anew, with no session left",
			cfg.KeyFile(), MarkerFile(cfg)), command.ErrConfig)
	}
	if cfg.Store.Redis != nil {
		return nil, false, noSharedKeys(cfg.KeyFile())
	}
	if ring, err = keyfile.NewService(now); err != nil {
		return nil, false, err
	}
	err = keyfile.Create(cfg.KeyFile(), ring)
	if errors.Is(err, fs.ErrExist) { // another process was quicker
		ring, err = Keys(cfg)
		return ring, false, err
	}
	return ring, true, err
}

// markerFile remembers which store belongs to the service.
func MarkerFile(cfg *config.Config) string { return filepath.Join(cfg.DataDir, "store.id") }
