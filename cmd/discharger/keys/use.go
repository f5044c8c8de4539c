package keys

import (
	"context"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/discharger/keyfile"
)

func useCommand() command.Command {
	return command.Command{
		Name: "keys use", Args: "[flags] <id> [key file]", Short: "Put a staged key, or a previous one, into use.", Needs: []string{"id"}, Max: 2,
		Example:  "discharger keys use --config discharger.yaml 1a2b3c4d",
		Complete: completeKeys,
		Long: `
From now on the key makes the macaroons or caveats of its kind. The key in use before
becomes a previous one: it is accepted until "discharger keys retire". A process
reads the change at SIGHUP.

Every process has to read the staged key before: one that has not answers 503 to
macaroons and caveats that the key made. "discharger keys list" shows the ids.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			k := declare(t, f)
			f.BoolVar(&k.signing, "signing", false, "for the keys that sign security events")
			return k.ofKey(k.use, k.useSigning)
		},
	}
}

func (k *keyFile) use(_ context.Context, id string) error {
	var used keyfile.Key
	already := false
	err := keyfile.Update(k.path, k.access, func(r *keyfile.Ring) (err error) {
		key, err := r.Find(id)
		if err != nil {
			return err
		}
		already = r.StateOf(key) == keyfile.Used
		used, err = r.Use(id, k.t.Now())
		return err
	})
	if err != nil {
		return keyFileError(err)
	}
	if already {
		k.t.Say("%s key %s is used already", used.Kind, used.ID)
		return nil
	}
	k.t.Say("%s key %s is in use now", used.Kind, used.ID)
	k.t.Say("%s", usedNext(used.Kind, k.path))
	return nil
}

func serviceCommand() command.Command {
	return command.Command{
		Name: "keys service", Args: "[flags] <key file>", Short: "Store the service's public key in a homeserver's key file.",
		Needs: []string{"key file"}, Max: 1,
		Example: "discharger keys service homeserver.json",
		Long: `
After another key of kind discharger was put into use, a homeserver seals caveats to
the previous one until its key file has the new one and it has read the file
(SIGHUP, for a gateway). The public key is fetched from the service that the file
names, or given with --service-key.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			k := declare(t, f)
			service := f.String("service", "", "`URL` of the service, which is stored too; empty: as in the key file")
			given := f.String("service-key", "", "public `key` of the service, in base64")
			return func(ctx context.Context, args []string) error {
				if err := k.find(args); err != nil {
					return err
				}
				return k.storeServiceKey(ctx, *service, *given)
			}
		},
	}
}

func (k *keyFile) storeServiceKey(ctx context.Context, service, given string) error {
	ring, err := keyfile.Load(k.path, k.access)
	if err != nil {
		return keyFileError(err)
	}
	if ring.Owner != keyfile.Homeserver {
		return command.Usagef("keys service: the keys in %s are those of a %s", k.path, ring.Owner)
	}
	if service == "" {
		service = ring.Peer.Service
	}
	key, err := servicePublicKey(ctx, k.t, service, given)
	if err != nil {
		return err
	}
	var before keyfile.Peer
	err = keyfile.Update(k.path, k.access, func(r *keyfile.Ring) error {
		before = r.Peer
		r.Peer.Service, r.Peer.ServiceKey = service, key
		return nil
	})
	if err != nil {
		return keyFileError(err)
	}
	if before.Service == service && before.ServiceKey == key {
		k.t.Say("%s is unchanged: it has this key", k.path)
		return nil
	}
	k.t.Say("stored in %s; a gateway uses it after it has read the file (SIGHUP)", k.path)
	return nil
}
