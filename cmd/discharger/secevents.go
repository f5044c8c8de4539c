package main

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"text/tabwriter"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/config/keyfile"
	"github.com/discharger/discharger/discharger/secevent"
)

// receivers are those who are told what is revoked.
func receivers(cfg *config.Config) (all []secevent.Receiver) {
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
func loadSigning(cfg *config.Config) (*secevent.Keys, error) {
	keys, err := keyfile.LoadSigning(cfg.SigningFile(), keyfile.Access(cfg.Keys.GroupReadable))
	if err != nil {
		return nil, mark(err, errConfig)
	}
	return newSigning(keys)
}

func newSigning(keys []*rsa.PrivateKey) (*secevent.Keys, error) {
	k, err := secevent.NewKeys(keys)
	return k, mark(err, errConfig)
}

// loadOrMakeSigning does the same where somebody is told what is revoked, and
// makes a key first if there is none; nil: nobody is told. Another key than
// before loses nothing, since receivers ask which there are.
func loadOrMakeSigning(cfg *config.Config, log *slog.Logger) (*secevent.Keys, error) {
	if len(receivers(cfg)) == 0 {
		return nil, nil
	}
	keys, err := loadSigning(cfg)
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return keys, err
	case cfg.Store.Redis != nil:
		return nil, errNoSigning(cfg)
	}
	made, err := keyfile.NewSigning(cfg.SigningFile())
	if errors.Is(err, fs.ErrExist) { // another process was quicker
		return loadSigning(cfg)
	}
	if err != nil {
		return nil, err
	}
	log.Info("made a key to sign security events with", slog.String("file", cfg.SigningFile()), slog.String("mode", "0600"))
	return newSigning(made)
}

func errNoSigning(cfg *config.Config) error {
	return mark(fmt.Errorf("there is no key to sign security events with in %[1]s; with Redis, every process needs the same one: "+
		"make it once, with discharger keys new --kind signing %[1]s, and give each process that file", cfg.SigningFile()), errConfig)
}

// sender sends security events as a configuration says; nil: it has no receivers.
func (p *parts) sender(cfg *config.Config, keys *secevent.Keys) (*secevent.Sender, error) {
	if keys == nil {
		return nil, nil
	}
	s, err := secevent.New(secevent.Config{
		Feed: p.store, Receivers: receivers(cfg), Issuer: cfg.PublicURL, Keys: keys, Dir: cfg.DataDir,
		Metrics: p.told, Log: p.log, Now: p.now,
	})
	return s, mark(err, errConfig)
}

// sending is a sender at work. Nil: there is none.
type sending struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func send(s *secevent.Sender) *sending {
	if s == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	running := &sending{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(running.done)
		s.Run(ctx)
	}()
	return running
}

// end returns when nothing is under way. What was not delivered is in the feed.
func (s *sending) end() {
	if s != nil {
		s.cancel()
		<-s.done
	}
}

// makeSigning makes the key, or adds one to those that are there.
func (n *newKeys) makeSigning(args []string) error {
	path, access, err := keyPath(n.options, args, (*config.Config).SigningFile)
	if err != nil {
		return err
	}
	if err := n.prepare(args); err != nil {
		return err
	}
	_, err = keyfile.NewSigning(path)
	switch {
	case err == nil:
		n.t.say("made %s, mode 0600: security events are signed with what is in it", path)
	case errors.Is(err, fs.ErrExist):
		if err := keyfile.AddSigning(path, access); err != nil {
			return keyFileError(err)
		}
		n.t.say("put another key before those in %s: it signs when the service has read it, and the others are\n"+
			"published beside it until they are retired", path)
	default:
		return err
	}
	return nil
}

func listSigning(t *terminal, o *config.Options, args []string) error {
	path, access, err := keyPath(o, args, (*config.Config).SigningFile)
	if err != nil {
		return err
	}
	keys, err := keyfile.LoadSigning(path, access)
	if err != nil {
		return mark(err, errConfig)
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tID\tBITS")
	for _, k := range keys {
		fmt.Fprintf(w, "signing\t%s\t%d\n", secevent.KeyID(&k.PublicKey), k.N.BitLen())
	}
	return w.Flush()
}

// retireSigning takes a key out of the file.
func retireSigning(t *terminal, o *config.Options, id string, args []string, sure bool) error {
	path, access, err := keyPath(o, args, (*config.Config).SigningFile)
	if err != nil {
		return err
	}
	err = keyfile.RetireSigning(path, access, func(k *rsa.PublicKey) (bool, error) {
		switch {
		case secevent.KeyID(k) != id:
			return false, nil
		case !sure:
			return false, usagef("receivers will take nothing that was signed with it, and ask for the keys again; add --yes to retire it")
		}
		return true, nil
	})
	if err != nil {
		return keyFileError(err)
	}
	t.say("retired; the service knows at the next SIGHUP or start")
	return nil
}

// checkReceivers says who is told what is revoked, and whether that can be signed.
func checkReceivers(t *terminal, cfg *config.Config) error {
	if !cfg.HasReceivers() {
		return nil
	}
	_, err := loadSigning(cfg)
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		if err != nil {
			return err
		}
		fmt.Fprintf(t.out, "signing keys in %s\n", cfg.SigningFile())
	case cfg.Store.Redis != nil:
		return errNoSigning(cfg)
	default:
		fmt.Fprintf(t.out, "signing keys none yet; the first start makes one, in %s\n", cfg.SigningFile())
	}
	for _, r := range receivers(withReceiver(cfg)) {
		fmt.Fprintf(t.out, "events of    %s to %s\n", quoted(r.Homeserver), quoted(r.Audience))
	}
	return nil
}

// withReceiver has the gateway's receiver among the homeservers'.
func withReceiver(cfg *config.Config) *config.Config {
	g := cfg.Gateway
	if g == nil || g.SecurityEvents == nil {
		return cfg
	}
	c := *cfg
	c.Homeservers = append(append([]config.Homeserver(nil), cfg.Homeservers...), config.Homeserver{Name: g.Name, SecurityEvents: g.SecurityEvents})
	return &c
}
