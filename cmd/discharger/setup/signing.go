package setup

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/secevent"
)

// Receivers returns the receivers of security events.
func Receivers(cfg *config.Config) (all []secevent.Receiver) {
	for _, h := range cfg.Homeservers {
		if e := h.SecurityEvents; e != nil {
			all = append(all, secevent.Receiver{
				Homeserver: h.Name, URL: e.URL, Audience: e.Audience, Authorization: e.Authorization,
			})
		}
	}
	return all
}

// Signing reads the keys that sign security events.
func Signing(cfg *config.Config) (*secevent.Keys, error) {
	keys, err := keyfile.LoadSigning(cfg.SigningFile(), keyfile.Access(cfg.Keys.GroupReadable))
	if err != nil {
		return nil, command.Mark(err, command.ErrConfig)
	}
	return newSigning(keys)
}

func newSigning(keys []*rsa.PrivateKey) (*secevent.Keys, error) {
	k, err := secevent.NewKeys(keys)
	return k, command.Mark(err, command.ErrConfig)
}

// SigningOrNew reads the keys that sign security events, and makes one if the file is
// missing; nil: no receiver is configured. A new key is harmless, since receivers fetch
// the public keys.
func SigningOrNew(cfg *config.Config, log *slog.Logger) (*secevent.Keys, error) {
	if len(Receivers(cfg)) == 0 {
		return nil, nil
	}
	keys, err := Signing(cfg)
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return keys, err
	case cfg.Store.Redis != nil:
		return nil, ErrNoSigning(cfg)
	}
	made, err := keyfile.NewSigning(cfg.SigningFile())
	if errors.Is(err, fs.ErrExist) { // another process made it meanwhile
		return Signing(cfg)
	}
	if err != nil {
		return nil, err
	}
	log.Info("made signing key for security events", slog.String("file", cfg.SigningFile()), slog.String("mode", "0600"))
	return newSigning(made)
}

// ErrNoSigning returns the error of a missing file of signing keys.
func ErrNoSigning(cfg *config.Config) error {
	return fmt.Errorf("security events cannot be signed: %w", noSharedKeys(cfg.SigningFile()))
}
