package keys

import (
	"context"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
)

// ServiceCommand returns the command "keys service".
func ServiceCommand() command.Command {
	return command.Command{
		Name: "keys service", Args: "[flags] <key file>", Short: "Store the service's public key in a homeserver's key file.", Max: 1,
		Example: "discharger keys service homeserver.json",
		Long: `
After another key of kind discharger was put into use, a homeserver seals caveats to
the previous one until its key file has the new one and it has read the file
(SIGHUP, for a gateway). The public key is fetched from the service that the file
names, or given with --service-key.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			options := setup.ConfigFlags(t, f)
			service := f.String("service", "", "`URL` of the service, which is stored too; empty: as in the key file")
			given := f.String("service-key", "", "public `key` of the service, in base64")
			return func(ctx context.Context, args []string) error {
				if len(args) == 0 {
					return command.Usagef("keys service: the key file is missing")
				}
				path, access, err := keyPath(options, args, (*config.Config).KeyFile)
				if err != nil {
					return err
				}
				return storeServiceKey(ctx, t, path, access, *service, *given)
			}
		},
	}
}

func storeServiceKey(ctx context.Context, t *command.Terminal, path string, a keyfile.Access, service, given string) error {
	ring, err := keyfile.Load(path, a)
	if err != nil {
		return command.Mark(err, command.ErrConfig)
	}
	if ring.Owner != keyfile.Homeserver {
		return command.Usagef("keys service: the keys in %s are those of a %s", path, ring.Owner)
	}
	if service == "" {
		service = ring.Peer.Service
	}
	key, err := servicePublicKey(ctx, t, service, given)
	if err != nil {
		return err
	}
	var before keyfile.Peer
	err = keyfile.Update(path, a, func(r *keyfile.Ring) error {
		before = r.Peer
		r.Peer.Service, r.Peer.ServiceKey = service, key
		return nil
	})
	if err != nil {
		return keyFileError(err)
	}
	if before.Service == service && before.ServiceKey == key {
		t.Say("%s is unchanged: it has this key", path)
		return nil
	}
	t.Say("stored in %s; a gateway uses it after it has read the file (SIGHUP)", path)
	return nil
}
