package keys

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"text/tabwriter"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/secevent"
)

// makeSigning makes the file with a key, or adds a key to it.
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
		n.t.Say("made %s, mode 0600: its key signs security events", path)
	case errors.Is(err, fs.ErrExist):
		return n.addSigning(path, access)
	}
	return err
}

// addSigning adds a key to an existing file.
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
		n.t.Say("staged signing key %s in %s", secevent.KeyID(key), path)
		n.t.Say("copy the file to every process of the service, and reload each (SIGHUP), so that receivers find the key")
		n.t.Say("then: discharger keys use --signing %s %s", secevent.KeyID(key), path)
		return nil
	}
	n.t.Say("added signing key %s to %s: the service signs with it once it has read the file (SIGHUP), and publishes\n"+
		"the others beside it until they are retired", secevent.KeyID(key), path)
	return nil
}

func listSigning(t *command.Terminal, o *config.Options, args []string) error {
	path, access, err := keyPath(o, args, (*config.Config).SigningFile)
	if err != nil {
		return err
	}
	keys, err := keyfile.ListSigning(path, access)
	if err != nil {
		return command.Mark(err, command.ErrConfig)
	}
	w := tabwriter.NewWriter(t.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tID\tSTATE\tBITS")
	for _, k := range keys {
		fmt.Fprintf(w, "signing\t%s\t%s\t%d\n", secevent.KeyID(&k.PublicKey), k.State, k.N.BitLen())
	}
	return w.Flush()
}

// retireSigning takes a key out of the file.
func retireSigning(t *command.Terminal, o *config.Options, id string, args []string, sure bool) error {
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
		t.Say("no session ends; receivers fetch the keys again, and refuse events that it signed")
		return command.Usagef("nothing was changed; add --yes to retire it")
	}
	if err := keyfile.RetireSigning(path, access, match); err != nil {
		return keyFileError(err)
	}
	t.Say("retired; a running service reads it at SIGHUP")
	return nil
}

// useSigning has the keys of a file sign with another one.
func useSigning(t *command.Terminal, o *config.Options, id string, args []string) error {
	path, access, err := keyPath(o, args, (*config.Config).SigningFile)
	if err != nil {
		return err
	}
	if err := keyfile.UseSigning(path, access, signingID(id)); err != nil {
		return keyFileError(err)
	}
	t.Say("signing key %s is in use now; copy the file to every process of the service, and reload each (SIGHUP)", id)
	return nil
}

// signingID matches the key with an id.
func signingID(id string) func(*rsa.PublicKey) bool {
	return func(k *rsa.PublicKey) bool { return secevent.KeyID(k) == id }
}
