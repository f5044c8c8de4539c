package keys

import (
	"context"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
)

// UseCommand returns the command "keys use".
func UseCommand() command.Command {
	return command.Command{
		Name: "keys use", Args: "[flags] <id> [key file]", Short: "Put a staged key, or a previous one, into use.", Max: 2,
		Example:  "discharger keys use --config discharger.yaml 1a2b3c4d",
		Complete: completeKeys,
		Long: `
From now on the key makes the macaroons or caveats of its kind. The key in use before
becomes a previous one: it is accepted until "discharger keys retire". A process
reads the change at SIGHUP.

Every process has to read the staged key before: one that has not answers 503 to
macaroons and caveats that the key made.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			options := setup.ConfigFlags(t, f)
			signing := f.Bool("signing", false, "for the keys that sign security events")
			return func(_ context.Context, args []string) error {
				if len(args) == 0 {
					return command.Usagef("keys use: the id is missing; discharger keys list shows the ids")
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

func useKey(t *command.Terminal, path string, a keyfile.Access, id string) error {
	var used keyfile.Key
	already := false
	err := keyfile.Update(path, a, func(r *keyfile.Ring) (err error) {
		k, err := r.Find(id)
		if err != nil {
			return err
		}
		already = r.StateOf(k) == keyfile.Used
		used, err = r.Use(id, t.Now())
		return err
	})
	if err != nil {
		return keyFileError(err)
	}
	if already {
		t.Say("%s key %s is used already", used.Kind, used.ID)
		return nil
	}
	t.Say("%s key %s is in use now", used.Kind, used.ID)
	t.Say("%s", usedNext(used.Kind, path))
	return nil
}
