package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/config/keyfile"
	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
)

func keysNewCommand() command {
	return command{
		name: "keys new", args: "[flags] [key file]", about: "Make keys, or add one.", max: 1,
		more: `
Without --kind, it makes the service's key file. "serve" does that by itself.

With --kind homeserver, it makes the keys of a homeserver and prints the entry
that registers it. The service's public key is asked from the service, or given
with --service-key.

With --kind signing, it makes the key that security events are signed with, or
puts a new one before those in the file. "serve" makes one by itself.

Any other kind adds one key to a file: discharger or refresh to the service's,
seal, root or api to a homeserver's. The new key is used from now on, and the
others of its kind still work. A service that runs takes it up at SIGHUP.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			n := newKeys{t: t, options: configFlags(t, f)}
			f.StringVar(&n.kind, "kind", "", "`what` to make or add: homeserver, discharger, refresh, seal, root, api or signing")
			f.StringVar(&n.name, "name", "", "`name` of the homeserver")
			f.StringVar(&n.service, "service", t.env("DISCHARGER_SERVICE", defaultService), "`URL` of the service; or $DISCHARGER_SERVICE")
			f.StringVar(&n.serviceKey, "service-key", "", "public `key` of the service, in base64")
			return n.run
		},
	}
}

// newKeys is one run of keys new.
type newKeys struct {
	t                               *terminal
	options                         *config.Options
	kind, name, service, serviceKey string
}

func (n *newKeys) run(ctx context.Context, args []string) error {
	if n.kind == "homeserver" {
		return n.makeHomeserver(ctx, args)
	}
	if n.kind == "signing" {
		return n.makeSigning(args)
	}
	path, access, err := keyPath(n.options, args, (*config.Config).KeyFile)
	if err != nil {
		return err
	}
	if n.kind == "" {
		return n.makeService(path, args)
	}
	return n.add(path, access)
}

// keyPath is the key file that is meant: the one given, or the configured one.
func keyPath(o *config.Options, args []string, configured func(*config.Config) string) (path string, a keyfile.Access, err error) {
	cfg, err := loadConfig(o)
	if err != nil {
		return "", a, err
	}
	a = keyfile.Access(cfg.Keys.GroupReadable)
	if len(args) > 0 {
		return args[0], a, nil
	}
	return configured(cfg), a, nil
}

// prepare makes the directory that keys are made in, unless they are to be
// elsewhere.
func (n *newKeys) prepare(args []string) error {
	if len(args) > 0 {
		return nil
	}
	cfg, err := loadConfig(n.options)
	if err != nil {
		return err
	}
	_, err = prepareDataDir(cfg)
	return err
}

func (n *newKeys) makeService(path string, args []string) error {
	if err := n.prepare(args); err != nil {
		return err
	}
	ring, err := keyfile.NewService(n.t.now(), nil)
	if err != nil {
		return err
	}
	if err := create(path, ring); err != nil {
		return err
	}
	n.t.say("made %s", path)
	list(n.t.out, ring)
	return nil
}

func create(path string, ring *keyfile.Ring) error {
	err := keyfile.Create(path, ring)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and stays; to add a key to it, say which with --kind", path)
	}
	return err
}

func (n *newKeys) makeHomeserver(ctx context.Context, args []string) error {
	if len(args) == 0 || n.name == "" {
		return usagef("keys new --kind homeserver: which --name, and which file?")
	}
	p := keyfile.Peer{Name: n.name, Service: n.service}
	var err error
	if p.ServiceKey, err = n.publicKey(ctx); err != nil {
		return err
	}
	ring, err := keyfile.NewHomeserver(p, n.t.now(), nil)
	if err != nil {
		return err
	}
	if err := create(args[0], ring); err != nil {
		return err
	}
	n.t.say("made %s, mode 0600: the keys of %s\nput this into the service's configuration:\n", args[0], quoted(n.name))
	fmt.Fprint(n.t.out, "homeservers:\n"+entry(ring))
	return nil
}

// publicKey is the service's: as given, or as the service says.
func (n *newKeys) publicKey(ctx context.Context) (caveat.PublicKey, error) {
	if n.serviceKey != "" {
		return caveat.ParsePublicKey(n.serviceKey)
	}
	client, err := api.New(api.Config{URL: n.service, Patience: -1, Clock: n.t.now})
	if err != nil {
		return caveat.PublicKey{}, err
	}
	key, err := client.Info(ctx)
	if err != nil {
		return caveat.PublicKey{}, fmt.Errorf("%w; start the service, or give its --service-key", err)
	}
	n.t.say("%s says that its public key is %s", n.service, key)
	return key, nil
}

// entry is what registers a homeserver, in YAML.
func entry(ring *keyfile.Ring) string {
	seal := ring.Of(keyfile.Seal)
	text := fmt.Sprintf("  - name: %q\n    public_key: %s\n", ring.Peer.Name, seal[0].Public)
	if len(seal) > 1 {
		text += "    previous_public_keys:\n"
		for _, k := range seal[1:] {
			text += fmt.Sprintf("      - %s\n", k.Public)
		}
	}
	text += "    api_key_sha256:\n"
	for _, k := range ring.Of(keyfile.API) {
		text += fmt.Sprintf("      - %x\n", k.APIDigest())
	}
	return text
}

func (n *newKeys) add(path string, a keyfile.Access) error {
	var added keyfile.Key
	err := keyfile.Update(path, a, func(r *keyfile.Ring) (err error) {
		if !slices.Contains(r.Owner.Kinds(), keyfile.Kind(n.kind)) {
			return usagef("keys new: %s is a %s's, whose keys are of kind %v", path, r.Owner, r.Owner.Kinds())
		}
		added, err = r.Add(keyfile.Kind(n.kind), n.t.now(), nil)
		return err
	})
	if err != nil {
		return keyFileError(err)
	}
	n.t.say("added %s key %s to %s", added.Kind, added.ID, path)
	switch added.Kind {
	case keyfile.Discharger:
		n.t.say("it is advertised when the service has read it; homeservers go on with the old one until they ask again")
	case keyfile.Refresh:
		n.t.say("if several processes serve, let all of them read it before long: tokens signed with it work only where it is known")
	case keyfile.Seal, keyfile.API:
		n.t.say("register it before it is used: discharger keys list %s prints the entry", path)
	}
	return nil
}

// keyFileError tells trouble with a key file from a mistake in using it.
func keyFileError(err error) error {
	if errors.Is(err, keyfile.ErrUnknownKey) || exitCode(err) == exitUsage {
		return err
	}
	return mark(err, errConfig)
}

func keysListCommand() command {
	return command{
		name: "keys list", args: "[flags] [key file]", about: "Show which keys there are, and nothing secret.", max: 1,
		more: "Of each kind, the first is used and the others still work. For a homeserver's\nkeys, it also prints the entry that registers them.",
		setup: func(t *terminal, f *flag.FlagSet) action {
			options := configFlags(t, f)
			signing := f.Bool("signing", false, "of the keys that sign security events")
			return func(_ context.Context, args []string) error {
				if *signing {
					return listSigning(t, options, args)
				}
				path, access, err := keyPath(options, args, (*config.Config).KeyFile)
				if err != nil {
					return err
				}
				ring, err := keyfile.Load(path, access)
				if err != nil {
					return mark(err, errConfig)
				}
				list(t.out, ring)
				if ring.Owner == keyfile.Homeserver {
					fmt.Fprint(t.out, "\nhomeservers:\n"+entry(ring))
				}
				return nil
			}
		},
	}
}

func list(out io.Writer, ring *keyfile.Ring) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tID\tCREATED\tPUBLIC")
	for _, kind := range ring.Owner.Kinds() {
		for _, k := range ring.Of(kind) {
			public := ""
			switch kind {
			case keyfile.Discharger, keyfile.Seal:
				public = k.Public.String()
			case keyfile.API:
				public = fmt.Sprintf("SHA-256 %x", k.APIDigest())
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", k.Kind, k.ID, k.Created.Format(time.DateTime), public)
		}
	}
	w.Flush()
}

func keysRetireCommand() command {
	return command{
		name: "keys retire", args: "[flags] <id> [key file]", about: "Take a key out, which ends what was made with it.", max: 2,
		setup: func(t *terminal, f *flag.FlagSet) action {
			options := configFlags(t, f)
			sure := f.Bool("yes", false, "do it; without, it only says what would happen")
			signing := f.Bool("signing", false, "of the keys that sign security events")
			return func(_ context.Context, args []string) error {
				if len(args) == 0 {
					return usagef("keys retire: which key? discharger keys list shows the ids")
				}
				if *signing {
					return retireSigning(t, options, args[0], args[1:], *sure)
				}
				path, access, err := keyPath(options, args[1:], (*config.Config).KeyFile)
				if err != nil {
					return err
				}
				return retire(t, path, access, args[0], *sure)
			}
		},
	}
}

func retire(t *terminal, path string, a keyfile.Access, id string, sure bool) error {
	var retired keyfile.Key
	errUnsure := usagef("nothing was changed; add --yes to retire it")
	err := keyfile.Update(path, a, func(r *keyfile.Ring) (err error) {
		retired, err = r.Retire(id)
		if err == nil && !sure {
			err = errUnsure
		}
		return err
	})
	if err != nil && !errors.Is(err, errUnsure) {
		return keyFileError(err)
	}
	t.say("%s key %s, made %s:\n%s", retired.Kind, retired.ID, retired.Created.Format(time.DateTime), consequences(retired.Kind))
	if err == nil {
		t.say("retired; the service knows at the next SIGHUP or start")
	}
	return err
}

// consequences says what ends with a key. How much that is cannot be counted:
// what was made with a key is with the clients, and nowhere else.
func consequences(kind keyfile.Kind) string {
	switch kind {
	case keyfile.Discharger:
		return "access macaroons whose caveat was sealed to it can never be discharged again. How many there\n" +
			"are is not known here. Retire it when the last homeserver has had the new key for as long as\nsessions last."
	case keyfile.Refresh:
		return "refresh tokens signed with it are not understood any more. A client that has been active since\n" +
			"the newer key came has one of that; every other has to log in again."
	case keyfile.Seal:
		return "caveats sealed with it work for as long as the service has it among previous_public_keys."
	case keyfile.Root:
		return "access macaroons minted with it are not accepted any more: those sessions are over."
	case keyfile.API:
		return "it works until its SHA-256 is taken out of the service's configuration."
	}
	return ""
}
