package keys

import (
	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/secevent"
)

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
	o := &config.Options{File: f.Lookup("config").Value.String(), LookupEnv: t.LookupEnv}
	ids := []string{}
	if f.Changed("signing") {
		path, access, err := keyPath(o, nil, (*config.Config).SigningFile)
		if err != nil {
			return ids
		}
		signing, _ := keyfile.ListSigning(path, access) // without a file there is nothing to complete
		for _, k := range signing {
			ids = append(ids, secevent.KeyID(&k.PublicKey)+"\tsigning, "+string(k.State))
		}
		return ids
	}
	path, access, err := keyPath(o, nil, (*config.Config).KeyFile)
	if err != nil {
		return ids
	}
	ring, err := keyfile.Load(path, access)
	if err != nil {
		return ids
	}
	for _, kind := range ring.Owner.Kinds() {
		for _, k := range ring.Of(kind) {
			ids = append(ids, k.ID+"\t"+string(k.Kind)+", "+string(ring.StateOf(k)))
		}
	}
	return ids
}
