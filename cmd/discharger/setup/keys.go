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

// HomeserverKeys reads a key file of a homeserver.
func HomeserverKeys(path string) (*keyfile.Ring, error) {
	ring, err := keyfile.Load(path, keyfile.OwnerOnly)
	if err == nil && ring.Owner != keyfile.Homeserver {
		err = fmt.Errorf("key file %s: its keys are those of a %s", path, ring.Owner)
	}
	return ring, command.Mark(err, command.ErrConfig)
}

// DataDir makes the directory for keys and sessions, and reports whether it was
// missing.
func DataDir(cfg *config.Config) (made bool, err error) {
	if _, err := os.Stat(cfg.DataDir); err == nil {
		return false, nil
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return false, fmt.Errorf("make data directory: %w", err)
	}
	return true, nil
}

// Ring reads a key file, whose mode is checked as keys.group_readable requires.
func Ring(cfg *config.Config, file string) (*keyfile.Ring, error) {
	access := keyfile.OwnerOnly
	if cfg.Keys.GroupReadable {
		access = keyfile.GroupToo
	}
	return keyfile.Load(file, access)
}

// Keys reads the service's keys.
func Keys(cfg *config.Config) (*keyfile.Ring, error) {
	ring, err := Ring(cfg, cfg.KeyFile())
	if err == nil && ring.Owner != keyfile.Service {
		err = fmt.Errorf("key file %s: its keys are those of a %s", cfg.KeyFile(), ring.Owner)
	}
	return ring, command.Mark(err, command.ErrConfig)
}

// KeysOrNew reads the service's keys. If they are missing and the data directory is not
// that of an earlier service, it makes them and returns true.
func KeysOrNew(cfg *config.Config, now time.Time) (ring *keyfile.Ring, made bool, err error) {
	ring, err = Keys(cfg)
	if !errors.Is(err, fs.ErrNotExist) {
		return ring, false, err
	}
	// Other keys would end all sessions of the store.
	if _, err := os.Stat(MarkerFile(cfg)); err == nil {
		return nil, false, command.Mark(fmt.Errorf("no keys in %s, but %s was made by a service with keys: "+
			"restore the key file, or remove %[2]s to end all sessions", cfg.KeyFile(), MarkerFile(cfg)), command.ErrConfig)
	}
	if cfg.Store.Redis != nil {
		return nil, false, noSharedKeys(cfg.KeyFile())
	}
	if ring, err = keyfile.NewService(now); err != nil {
		return nil, false, err
	}
	err = keyfile.Create(cfg.KeyFile(), ring)
	if errors.Is(err, fs.ErrExist) { // another process made it meanwhile
		ring, err = Keys(cfg)
		return ring, false, err
	}
	return ring, true, err
}

// MarkerFile returns the file with the id of the store that belongs to the service.
func MarkerFile(cfg *config.Config) string { return filepath.Join(cfg.DataDir, "store.id") }
