package main

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"text/tabwriter"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
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
	return fmt.Errorf("security events cannot be signed: %w", noSharedKeys(cfg.SigningFile()))
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

// send runs a sender in the place of another one, which ends first; either may be
// nil. It does not wait for that: a read of the feed ends after seconds.
func send(s *secevent.Sender, before *sending) *sending {
	if s == nil && before == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	running := &sending{cancel: cancel, done: make(chan struct{})}
	if before != nil {
		before.cancel()
	}
	go func() {
		defer close(running.done)
		if before != nil {
			<-before.done
		}
		if s != nil {
			s.Run(ctx)
		}
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
	if n.staged {
		return n.addSigning(path, access)
	}
	_, err = keyfile.NewSigning(path)
	switch {
	case err == nil:
		n.t.say("made %s, mode 0600: security events are signed with what is in it", path)
	case errors.Is(err, fs.ErrExist):
		return n.addSigning(path, access)
	}
	return err
}

// addSigning puts another key into a file that is there.
func (n *newKeys) addSigning(path string, a keyfile.Access) error {
	state := keyfile.Used
	if n.staged {
		state = keyfile.Staged
	}
	key, err := keyfile.AddSigning(path, a, state)
	if err != nil {
		return keyFileError(err)
	}
	if n.staged {
		n.t.say("staged signing key %s in %s", secevent.KeyID(key), path)
		n.t.say("copy the file to every process of the service, and reload each (SIGHUP), so that receivers find the key")
		n.t.say("then: discharger keys use --signing %s %s", secevent.KeyID(key), path)
		return nil
	}
	n.t.say("added signing key %s to %s: the service signs with it once it has read the file (SIGHUP), and publishes\n"+
		"the others beside it until they are retired", secevent.KeyID(key), path)
	return nil
}

func listSigning(t *terminal, o *config.Options, args []string) error {
	path, access, err := keyPath(o, args, (*config.Config).SigningFile)
	if err != nil {
		return err
	}
	keys, err := keyfile.ListSigning(path, access)
	if err != nil {
		return mark(err, errConfig)
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tID\tSTATE\tBITS")
	for _, k := range keys {
		fmt.Fprintf(w, "signing\t%s\t%s\t%d\n", secevent.KeyID(&k.PublicKey), k.State, k.N.BitLen())
	}
	return w.Flush()
}

// retireSigning takes a key out of the file.
func retireSigning(t *terminal, o *config.Options, id string, args []string, sure bool) error {
	path, access, err := keyPath(o, args, (*config.Config).SigningFile)
	if err != nil {
		return err
	}
	keys, err := keyfile.ListSigning(path, access)
	if err != nil {
		return keyFileError(err)
	}
	match := signingID(id)
	i := slices.IndexFunc(keys, func(k keyfile.SigningKey) bool { return match(&k.PublicKey) })
	if i >= 0 && keys[i].State != keyfile.Used && !sure {
		t.say("no session ends; receivers ask for the keys again, and take nothing any more that was signed with it")
		return usagef("nothing was changed; add --yes to retire it")
	}
	if err := keyfile.RetireSigning(path, access, match); err != nil {
		return keyFileError(err)
	}
	t.say("retired; a service that runs takes it up at SIGHUP")
	return nil
}

// useSigning has the keys of a file sign with another one.
func useSigning(t *terminal, o *config.Options, id string, args []string) error {
	path, access, err := keyPath(o, args, (*config.Config).SigningFile)
	if err != nil {
		return err
	}
	if err := keyfile.UseSigning(path, access, signingID(id)); err != nil {
		return keyFileError(err)
	}
	t.say("signing key %s is in use now; copy the file to every process of the service, and reload each (SIGHUP)", id)
	return nil
}

// signingID matches the key with an id.
func signingID(id string) func(*rsa.PublicKey) bool {
	return func(k *rsa.PublicKey) bool { return secevent.KeyID(k) == id }
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
