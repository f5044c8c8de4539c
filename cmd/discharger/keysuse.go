package main

import (
	"context"
	"flag"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
)

func keysUseCommand() command {
	return command{
		name: "keys use", args: "[flags] <id> [key file]", about: "Begin to use a staged key, or a previous one again.", max: 2,
		more: `
From now on, things of the key's kind are made with it. The key that was used
before is a previous one: it is recognized until "discharger keys retire". A
process takes the change up at SIGHUP.

Have every process read the staged key before: one that has not answers 503 to
what the key made.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			options := configFlags(t, f)
			signing := f.Bool("signing", false, "of the keys that sign security events")
			return func(_ context.Context, args []string) error {
				if len(args) == 0 {
					return usagef("keys use: which key? discharger keys list shows the ids")
				}
				if *signing {
					return useSigning(t, options, args[0], args[1:])
				}
				path, access, err := keyPath(options, args[1:], (*config.Config).KeyFile)
				if err != nil {
					return err
				}
				return useKey(t, path, access, args[0])
			}
		},
	}
}

func useKey(t *terminal, path string, a keyfile.Access, id string) error {
	var used keyfile.Key
	already := false
	err := keyfile.Update(path, a, func(r *keyfile.Ring) (err error) {
		k, err := r.Find(id)
		if err != nil {
			return err
		}
		already = r.StateOf(k) == keyfile.Used
		used, err = r.Use(id, t.now())
		return err
	})
	if err != nil {
		return keyFileError(err)
	}
	if already {
		t.say("%s key %s is used already", used.Kind, used.ID)
		return nil
	}
	t.say("%s key %s is in use now", used.Kind, used.ID)
	t.say("%s", usedNext(used.Kind, path))
	return nil
}

func keysServiceCommand() command {
	return command{
		name: "keys service", args: "[flags] <key file>", about: "Store the service's public key in a homeserver's key file.", max: 1,
		more: `
After the service has begun to use another key of kind discharger, a homeserver
goes on to seal caveats to the previous one, until its key file has the new one
and it has read the file (SIGHUP, for a gateway). The public key is asked from
the service that the file names, or given with --service-key.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			options := configFlags(t, f)
			service := f.String("service", "", "`URL` of the service, which is stored too; empty: as in the key file")
			given := f.String("service-key", "", "public `key` of the service, in base64")
			return func(ctx context.Context, args []string) error {
				if len(args) == 0 {
					return usagef("keys service: in which key file?")
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

func storeServiceKey(ctx context.Context, t *terminal, path string, a keyfile.Access, service, given string) error {
	ring, err := keyfile.Load(path, a)
	if err != nil {
		return mark(err, errConfig)
	}
	if ring.Owner != keyfile.Homeserver {
		return usagef("keys service: the keys in %s are the %s's own", path, ring.Owner)
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
		t.say("%s has it already", path)
		return nil
	}
	t.say("stored in %s; a gateway seals to it once it has read the file (SIGHUP)", path)
	return nil
}
