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

// receivers are those who are told what is revoked.
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

// loadSigning reads what security events are signed with.
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

// loadOrMakeSigning does the same where somebody is told what is revoked, and
// makes a key first if there is none; nil: nobody is told. Another key than
// before loses nothing, since receivers ask which there are.
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
	if errors.Is(err, fs.ErrExist) { // another process was quicker
		return Signing(cfg)
	}
	if err != nil {
		return nil, err
	}
	log.Info("made a key to sign security events with", slog.String("file", cfg.SigningFile()), slog.String("mode", "0600"))
	return newSigning(made)
}

func ErrNoSigning(cfg *config.Config) error {
	return fmt.Errorf("security events cannot be signed: %w", noSharedKeys(cfg.SigningFile()))
}
