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

// gatewayKeys reads the gateway's keys.
func GatewayKeys(cfg *config.Config) (*keyfile.Ring, error) {
	ring, err := Ring(cfg, cfg.GatewayKeyFile())
	if err == nil && ring.Owner != keyfile.Homeserver {
		err = fmt.Errorf("key file %s: the keys in it are the %s's", cfg.GatewayKeyFile(), ring.Owner)
	}
	return ring, command.Mark(err, command.ErrConfig)
}

// gatewayKeysOrNew reads them too, and makes them first if there are none.
func GatewayKeysOrNew(cfg *config.Config, p keyfile.Peer, now time.Time) (ring *keyfile.Ring, made bool, err error) {
	ring, err = GatewayKeys(cfg)
	if !errors.Is(err, fs.ErrNotExist) {
		return ring, false, err
	}
	file := cfg.GatewayKeyFile()
	_, vaultErr := os.Stat(cfg.GatewayOutboxFile())
	switch {
	case vaultErr == nil:
		return nil, false, command.Mark(fmt.Errorf("there are no keys in %s, but there were: %s is from a gateway that had some; "+
			"restore the key file, or remove that one to begin anew, with every client logged out", file, cfg.GatewayOutboxFile()), command.ErrConfig)
	case cfg.Store.Redis != nil:
		return nil, false, noSharedKeys(file)
	case cfg.Gateway.KeysFile != "":
		return nil, false, err // it was named, so it should be there
	}
	if ring, err = keyfile.NewHomeserver(p, now); err != nil {
		return nil, false, err
	}
	if err := keyfile.Create(file, ring); err != nil {
		return nil, false, err
	}
	return ring, true, nil
}

// gatewayPeer is the service as a gateway's key file describes it.
func GatewayPeer(cfg *config.Config, keys *keyfile.Ring) keyfile.Peer {
	service := "http://" + httpd.Dialable(cfg.Listen)
	if cfg.PublicURL != "" {
		service = cfg.PublicURL
	}
	return keyfile.Peer{Name: cfg.Gateway.Name, Service: service, ServiceKey: keys.Of(keyfile.Discharger)[0].Public}
}
