package keys

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/secevent"
)

// makeSigning makes the file with a key, or adds a key to it.
func (n *newKeys) makeSigning() error {
	if n.staged {
		return n.addSigning()
	}
	_, err := keyfile.NewSigning(n.path)
	switch {
	case err == nil:
		n.t.Say("made %s, mode 0600: its key signs security events", n.path)
	case errors.Is(err, fs.ErrExist):
		return n.addSigning()
	}
	return err
}

// addSigning adds a key to an existing file.
func (n *newKeys) addSigning() error {
	state := keyfile.Used
	if n.staged {
		state = keyfile.Staged
	}
	key, err := keyfile.AddSigning(n.path, n.access, state)
	if err != nil {
		return keyFileError(err)
	}
	if n.staged {
		n.t.Say("staged signing key %s in %s", secevent.KeyID(key), n.path)
		n.t.Say("copy the file to every process of the service, and reload each (SIGHUP), so that receivers find the key")
		n.t.Say("then: discharger keys use --signing %s %s", secevent.KeyID(key), n.path)
		return nil
	}
	n.t.Say("added signing key %s to %s: the service signs with it once it has read the file (SIGHUP), and publishes\n"+
		"the others beside it until they are retired", secevent.KeyID(key), n.path)
	return nil
}

func (k *keyFile) listSigning() error {
	keys, err := keyfile.ListSigning(k.path, k.access)
	if err != nil {
		return keyFileError(err)
	}
	w := k.t.Table("KIND\tID\tSTATE\tBITS")
	for _, key := range keys {
		fmt.Fprintf(w, "signing\t%s\t%s\t%d\n", secevent.KeyID(&key.PublicKey), key.State, key.N.BitLen())
	}
	return w.Flush()
}

// retireSigning takes a key out of the file.
func (r *retirement) retireSigning(_ context.Context, id string) error {
	keys, err := keyfile.ListSigning(r.path, r.access)
	if err != nil {
		return keyFileError(err)
	}
	match := signingID(id)
	i := slices.IndexFunc(keys, func(k keyfile.SigningKey) bool { return match(&k.PublicKey) })
	if i >= 0 && keys[i].State != keyfile.Used && !r.sure {
		r.t.Say("no session ends; receivers fetch the keys again, and refuse events that it signed")
		return command.Usagef("nothing was changed; add --yes to retire it")
	}
	if err := keyfile.RetireSigning(r.path, r.access, match); err != nil {
		return keyFileError(err)
	}
	r.t.Say("retired; a running service reads it at SIGHUP")
	return nil
}

// useSigning has the keys of a file sign with another one.
func (k *keyFile) useSigning(_ context.Context, id string) error {
	if err := keyfile.UseSigning(k.path, k.access, signingID(id)); err != nil {
		return keyFileError(err)
	}
	k.t.Say("signing key %s is in use now; copy the file to every process of the service, and reload each (SIGHUP)", id)
	return nil
}

// signingID matches the key with an id.
func signingID(id string) func(*rsa.PublicKey) bool {
	return func(k *rsa.PublicKey) bool { return secevent.KeyID(k) == id }
}
