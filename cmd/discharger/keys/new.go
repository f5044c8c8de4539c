package keys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/keyfile"
)

func newCommand() command.Command {
	return command.Command{
		Name: "keys new", Args: "[flags] [key file]", Short: "Make a key file, or add a key to one.", Max: 1,
		Example: `discharger keys new --kind homeserver --name example.org --service https://auth.example.org homeserver.json
discharger keys new --kind refresh --staged --config discharger.yaml`,
		Values: map[string][]string{"kind": append([]string{"homeserver", "signing"}, kinds()...)},
		Long: `
Without --kind, it makes the service's key file. "serve" makes it too.

With --kind homeserver, it makes the keys of a homeserver and prints the entry
that registers it. The service's public key is fetched from the service, or given
with --service-key.

With --kind signing, it makes the key that signs security events, or puts a new one
before those in the file. "serve" makes the first one too.

Any other kind adds one key to a file: discharger or refresh to the service's,
seal, root or api to a homeserver's. The new key is in use from now on, and the
others of its kind are still accepted. A running service or gateway reads it at
SIGHUP.

If several processes have the file, or a service has to accept the key first, use
--staged: the new key is accepted and not in use. After every process has read the
file, "discharger keys use" puts it into use.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			n := newKeys{keyFile: declare(t, f)}
			f.StringVar(&n.kind, "kind", "", "`kind` of keys: homeserver, discharger, refresh, seal, root, api or signing")
			f.BoolVar(&n.staged, "staged", false, "add a key that is accepted, and in use after \"discharger keys use\"")
			f.StringVar(&n.name, "name", "", "`name` of the homeserver")
			f.StringVar(&n.service, "service", t.Env("DISCHARGER_SERVICE", setup.DefaultService), "`URL` of the service; or $DISCHARGER_SERVICE")
			f.StringVar(&n.serviceKey, "service-key", "", "public `key` of the service, in base64")
			return n.run
		},
	}
}

// newKeys is one run of keys new.
type newKeys struct {
	*keyFile
	kind, name, service, serviceKey string
	staged                          bool
}

func (n *newKeys) run(ctx context.Context, args []string) error {
	if n.staged && (n.kind == "homeserver" || n.kind == "") {
		return command.Usagef("keys new: the first keys of a file are in use at once; --staged adds a key, with --kind")
	}
	if n.kind == "homeserver" {
		return n.makeHomeserver(ctx, args)
	}
	n.signing = n.kind == "signing"
	if err := n.find(args); err != nil {
		return err
	}
	if !n.signing && n.kind != "" {
		return n.add()
	}
	if len(args) == 0 {
		cfg, err := setup.LoadConfig(n.options)
		if err != nil {
			return err
		}
		if err := setup.DataDir(cfg); err != nil {
			return err
		}
	}
	if n.signing {
		return n.makeSigning()
	}
	return n.makeService()
}

func (n *newKeys) makeService() error {
	ring, err := keyfile.NewService(n.t.Now())
	if err != nil {
		return err
	}
	if err := create(n.path, ring); err != nil {
		return err
	}
	n.t.Say("made %s", n.path)
	return list(n.t, ring)
}

func create(path string, ring *keyfile.Ring) error {
	err := keyfile.Create(path, ring)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists and is not replaced; --kind adds a key to it", path)
	}
	return err
}

func (n *newKeys) makeHomeserver(ctx context.Context, args []string) error {
	if len(args) == 0 || n.name == "" {
		return command.Usagef("keys new --kind homeserver: --name or the file is missing")
	}
	p := keyfile.Peer{Name: n.name, Service: n.service}
	var err error
	if p.ServiceKey, err = servicePublicKey(ctx, n.t, n.service, n.serviceKey); err != nil {
		return err
	}
	ring, err := keyfile.NewHomeserver(p, n.t.Now())
	if err != nil {
		return err
	}
	if err := create(args[0], ring); err != nil {
		return err
	}
	n.t.Say("made %s, mode 0600: the keys of %s\nadd this to the service's configuration:\n", args[0], command.Quoted(n.name))
	_, err = fmt.Fprint(n.t.Out, "homeservers:\n"+entry(ring))
	return err
}

// servicePublicKey parses the given key, or fetches the one of the service.
func servicePublicKey(ctx context.Context, t *command.Terminal, service, given string) (caveat.PublicKey, error) {
	if given != "" {
		return caveat.ParsePublicKey(given)
	}
	client, err := client.New(client.Config{URL: service, Patience: -1})
	if err != nil {
		return caveat.PublicKey{}, err
	}
	key, err := client.Info(ctx)
	if err != nil {
		return caveat.PublicKey{}, fmt.Errorf("%w; start the service, or give its --service-key", err)
	}
	t.Say("public key of %s: %s", service, key)
	return key, nil
}

func (n *newKeys) add() error {
	var added keyfile.Key
	err := keyfile.Update(n.path, n.access, func(r *keyfile.Ring) (err error) {
		if !slices.Contains(r.Owner.Kinds(), keyfile.Kind(n.kind)) {
			return command.Usagef("keys new: %s is a %s's, which has keys of kind %v", n.path, r.Owner, r.Owner.Kinds())
		}
		if n.staged {
			added, err = r.Stage(keyfile.Kind(n.kind), n.t.Now())
		} else {
			added, err = r.Add(keyfile.Kind(n.kind), n.t.Now())
		}
		return err
	})
	if err != nil {
		return keyFileError(err)
	}
	if n.staged {
		n.t.Say("staged %s key %s in %s", added.Kind, added.ID, n.path)
		n.t.Say("%s", stagedNext(added.Kind, n.path))
		n.t.Say("then: discharger keys use %s %s", added.ID, n.path)
		return nil
	}
	n.t.Say("added %s key %s to %s", added.Kind, added.ID, n.path)
	n.t.Say("%s", usedNext(added.Kind, n.path))
	return nil
}

// stagedNext returns the steps before a staged key is put into use.
func stagedNext(kind keyfile.Kind, path string) string {
	if kind == keyfile.Seal || kind == keyfile.API {
		return "put the entry that discharger keys list " + path + " prints into the service's configuration, and reload\n" +
			"the service (SIGHUP); copy the file to every gateway, and reload each (SIGHUP)"
	}
	return "copy the file to every process that has it, and reload each (SIGHUP)"
}

// usedNext returns the steps after a key was put into use.
func usedNext(kind keyfile.Kind, path string) string {
	switch kind {
	case keyfile.Discharger:
		return "copy the file to every process of the service, and reload each (SIGHUP); then have homeservers fetch the\n" +
			"public key again: for each gateway beside the service, discharger keys service <its key file>, and SIGHUP"
	case keyfile.Refresh:
		return "copy the file to every process of the service, and reload each (SIGHUP); a process that has not read the key\n" +
			"answers 503 to tokens signed with it"
	case keyfile.Seal, keyfile.API:
		return "the service needs the key before a gateway uses it: in its configuration, the entry that\n" +
			"discharger keys list " + path + " prints; then copy the file to every gateway, and reload each (SIGHUP)"
	}
	return "copy the file to every gateway, and reload each (SIGHUP); a gateway that has not read the key answers 503 to\n" +
		"tokens minted with it"
}
