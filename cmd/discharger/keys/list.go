package keys

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
)

// ListCommand returns the command "keys list".
func ListCommand() command.Command {
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
			options := setup.ConfigFlags(t, f)
			signing := f.Bool("signing", false, "list the keys that sign security events")
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
					return command.Mark(err, command.ErrConfig)
				}
				list(t.Out, ring)
				if ring.Owner == keyfile.Homeserver {
					fmt.Fprint(t.Out, "\nhomeservers:\n"+entry(ring))
				}
				return nil
			}
		},
	}
}

func list(out io.Writer, ring *keyfile.Ring) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tID\tSTATE\tCREATED\tPUBLIC")
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
	w.Flush()
}
