package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/httpd"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
)

// GatewayKeys reads the gateway's keys.
func GatewayKeys(cfg *config.Config) (*keyfile.Ring, error) {
	ring, err := Ring(cfg, cfg.GatewayKeyFile())
	if err == nil && ring.Owner != keyfile.Homeserver {
		err = fmt.Errorf("key file %s: its keys are those of a %s", cfg.GatewayKeyFile(), ring.Owner)
	}
	return ring, command.Mark(err, command.ErrConfig)
}

// GatewayKeysOrNew reads the gateway's keys. If the default file is missing, and the
// data directory is not that of an earlier gateway, it makes them and returns true.
func GatewayKeysOrNew(cfg *config.Config, p keyfile.Peer, now time.Time) (ring *keyfile.Ring, made bool, err error) {
	ring, err = GatewayKeys(cfg)
	if !errors.Is(err, fs.ErrNotExist) {
		return ring, false, err
	}
	file := cfg.GatewayKeyFile()
	_, outboxErr := os.Stat(cfg.GatewayOutboxFile())
	switch {
	case outboxErr == nil:
		return nil, false, command.Mark(fmt.Errorf("no keys in %s, but %s was made by a gateway with keys: "+
			"restore the key file, or remove %[2]s to log out every client", file, cfg.GatewayOutboxFile()), command.ErrConfig)
	case cfg.Store.Redis != nil:
		return nil, false, noSharedKeys(file)
	case cfg.Gateway.KeysFile != "":
		return nil, false, err // a configured file is never made
	}
	if ring, err = keyfile.NewHomeserver(p, now); err != nil {
		return nil, false, err
	}
	if err := keyfile.Create(file, ring); err != nil {
		return nil, false, err
	}
	return ring, true, nil
}

// GatewayPeer returns the service as a gateway's key file describes it.
func GatewayPeer(cfg *config.Config, keys *keyfile.Ring) keyfile.Peer {
	service := "http://" + httpd.Dialable(cfg.Listen)
	if cfg.PublicURL != "" {
		service = cfg.PublicURL
	}
	return keyfile.Peer{Name: cfg.Gateway.Name, Service: service, ServiceKey: keys.Of(keyfile.Discharger)[0].Public}
}
