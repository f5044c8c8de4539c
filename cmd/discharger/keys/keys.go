// Package keys has the commands that make, list, use and retire keys. None of them
// prints a secret. A command that ends sessions describes the effect first, and has it
// with --yes only.
package keys

import (
	"context"
	"errors"
	"fmt"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/secevent"
)

// Commands returns the commands "keys …".
func Commands() []command.Command {
	return []command.Command{
		initCommand(), newCommand(), listCommand(), useCommand(), retireCommand(), serviceCommand(),
	}
}

// keyFile is the key file of a command, and its flags.
type keyFile struct {
	t       *command.Terminal
	options *config.Options
	signing bool // it has the keys that sign security events
	path    string
	access  keyfile.Access
}

func declare(t *command.Terminal, f *flag.FlagSet) *keyFile {
	return &keyFile{t: t, options: setup.ConfigFlags(t, f)}
}

// find selects the file: the first of the arguments, or the configured one.
func (k *keyFile) find(args []string) error {
	cfg, err := setup.LoadConfig(k.options)
	if err != nil {
		return err
	}
	k.access = keyfile.Access(cfg.Keys.GroupReadable)
	switch {
	case len(args) > 0:
		k.path = args[0]
	case k.signing:
		k.path = cfg.SigningFile()
	default:
		k.path = cfg.KeyFile()
	}
	return nil
}

// ofKey returns the action of a command on a key: id and file are its arguments.
func (k *keyFile) ofKey(onRing, onSigning func(ctx context.Context, id string) error) command.Action {
	return func(ctx context.Context, args []string) error {
		if err := k.find(args[1:]); err != nil {
			return err
		}
		if k.signing {
			return onSigning(ctx, args[0])
		}
		return onRing(ctx, args[0])
	}
}

// keyFileError marks the error of an unusable key file. An unknown id and a wrong
// command line keep their exit codes.
func keyFileError(err error) error {
	if errors.Is(err, keyfile.ErrUnknownKey) || command.ExitCode(err) == command.ExitUsage {
		return err
	}
	return command.Mark(err, command.ErrConfig)
}

func listCommand() command.Command {
	return command.Command{
		Name: "keys list", Args: "[flags] [key file]", Short: "List keys and their states, without secrets.", Max: 1,
		Example: `discharger keys list --config discharger.yaml
discharger keys list homeserver.json`,
		Long: `
Each key has a state:

  staged    accepted; in use after "discharger keys use"
  used      in use, and accepted
  previous  accepted; in use before
  retired   removed; macaroons and caveats that it made are refused

For a homeserver's keys, it also prints the entry that registers them.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			k := declare(t, f)
			f.BoolVar(&k.signing, "signing", false, "list the keys that sign security events")
			return func(_ context.Context, args []string) error {
				if err := k.find(args); err != nil {
					return err
				}
				if k.signing {
					return k.listSigning()
				}
				ring, err := keyfile.Load(k.path, k.access)
				if err != nil {
					return keyFileError(err)
				}
				if err := list(t, ring); err != nil || ring.Owner != keyfile.Homeserver {
					return err
				}
				_, err = fmt.Fprint(t.Out, "\nhomeservers:\n"+entry(ring))
				return err
			}
		},
	}
}

func list(t *command.Terminal, ring *keyfile.Ring) error {
	w := t.Table("KIND\tID\tSTATE\tCREATED\tPUBLIC")
	for _, kind := range ring.Owner.Kinds() {
		for _, k := range ring.Of(kind) {
			public := ""
			switch kind {
			case keyfile.Discharger, keyfile.Seal:
				public = k.Public.String()
			case keyfile.API:
				public = fmt.Sprintf("SHA-256 %x", k.APIDigest())
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", k.Kind, k.ID, ring.StateOf(k), k.Created.Format(time.DateTime), public)
		}
		for _, k := range ring.RetiredOf(kind) {
			fmt.Fprintf(w, "%s\t%x\t%s\t\t\n", k.Kind, k.ID, keyfile.Retired)
		}
	}
	return w.Flush()
}

// entry returns the configuration of a homeserver at the service, in YAML.
func entry(ring *keyfile.Ring) string {
	seal := ring.Of(keyfile.Seal)
	text := fmt.Sprintf("  - name: %q\n    public_key: %s\n", ring.Peer.Name, seal[0].Public)
	if len(seal) > 1 {
		text += "    previous_public_keys:\n"
		for _, k := range seal[1:] {
			text += fmt.Sprintf("      - %s\n", k.Public)
		}
	}
	if gone := ring.RetiredOf(keyfile.Seal); len(gone) > 0 {
		text += "    retired_public_keys:\n"
		for _, k := range gone {
			text += fmt.Sprintf("      - %s\n", k.Public)
		}
	}
	text += "    api_key_sha256:\n"
	for _, k := range ring.Of(keyfile.API) {
		text += fmt.Sprintf("      - %x\n", k.APIDigest())
	}
	return text
}

// kinds returns the kinds of keys that can be added to a file.
func kinds() []string {
	return []string{
		string(keyfile.Discharger), string(keyfile.Refresh), string(keyfile.Seal), string(keyfile.Root), string(keyfile.API),
	}
}

// completeKeys returns the ids of the keys in the configured file, each with its kind
// and state; after the id, files are completed.
func completeKeys(t *command.Terminal, f *flag.FlagSet, args []string) []string {
	if len(args) > 0 {
		return nil
	}
	ids := []string{}
	k := keyFile{options: &config.Options{File: f.Lookup("config").Value.String(), LookupEnv: t.LookupEnv}, signing: f.Changed("signing")}
	if k.find(nil) != nil {
		return ids // without a file there is nothing to complete
	}
	if k.signing {
		keys, _ := keyfile.ListSigning(k.path, k.access)
		for _, key := range keys {
			ids = append(ids, secevent.KeyID(&key.PublicKey)+"\tsigning, "+string(key.State))
		}
		return ids
	}
	ring, err := keyfile.Load(k.path, k.access)
	if err != nil {
		return ids
	}
	for _, kind := range ring.Owner.Kinds() {
		for _, key := range ring.Of(kind) {
			ids = append(ids, key.ID+"\t"+string(key.Kind)+", "+string(ring.StateOf(key)))
		}
	}
	return ids
}
