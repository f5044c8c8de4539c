package keys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/backup"
	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/httpd"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
)

func retireCommand() command.Command {
	return command.Command{
		Name: "keys retire", Args: "[flags] <id> [key file]", Short: "Retire a key, which ends the sessions that depend on it.", Needs: []string{"id"}, Max: 2,
		Example: `discharger keys retire --config discharger.yaml 1a2b3c4d
discharger keys retire --config discharger.yaml --yes 1a2b3c4d`,
		Complete: completeKeys,
		Long: `
Prints which sessions end, and retires the key with --yes only. If this machine has
the service's store in a file, it counts them: with the file itself, or through the
service at admin_listen, as "discharger backup" does. The key in use cannot be
retired; put another one into use first.

A process refuses macaroons and caveats of the key after it has read the file
(SIGHUP). These refusals are soft: clients log in again and keep their encryption
keys. The id of the key stays in the file, which distinguishes a retired key from one
that a process has not read yet. "discharger keys list" shows the ids.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			r := retirement{keyFile: declare(t, f)}
			f.StringVar(&r.address, "address", "", "`host:port` of the service for operators, instead of admin_listen")
			f.BoolVar(&r.sure, "yes", false, "retire the key; without, only print the effect")
			f.BoolVar(&r.signing, "signing", false, "retire a key that signs security events")
			return r.ofKey(r.retire, r.retireSigning)
		},
	}
}

// retirement is one run of keys retire.
type retirement struct {
	*keyFile
	address string // of the service, for operators; empty: as configured
	sure    bool
}

func (r *retirement) retire(ctx context.Context, id string) error {
	t := r.t
	ring, err := keyfile.Load(r.path, r.access)
	if err != nil {
		return keyFileError(err)
	}
	next, previous := keyfile.Key{}, false
	k, err := ring.Find(id)
	if err == nil {
		next, previous = ring.Successor(k)
		_, err = ring.Retire(id)
	}
	if err != nil {
		return keyFileError(err)
	}
	t.Say("%s key %s, made %s, %s", k.Kind, k.ID, k.Created.Format(time.DateTime), stateText(k, next))
	if !previous {
		t.Say("no session ends: it was never in use")
	} else {
		t.Say("%s", consequences(k.Kind, next.UsedSince()))
		if endsSessions(k.Kind) {
			t.Say("%s", countText(r.count(ctx, ring, k.Kind, next.UsedSince())))
		}
	}
	if !r.sure {
		return command.Usagef("nothing was changed; add --yes to retire it")
	}
	err = keyfile.Update(r.path, r.access, func(ring *keyfile.Ring) error {
		if now, err := ring.Find(id); err == nil && now.Staged != k.Staged {
			return fmt.Errorf("key %s is not %s any more", id, stateText(k, next))
		}
		_, err := ring.Retire(id)
		return err
	})
	if err != nil {
		return keyFileError(err)
	}
	t.Say("retired; a running process reads it at SIGHUP")
	if k.Kind == keyfile.Seal || k.Kind == keyfile.API {
		t.Say("the service's configuration still has it: discharger keys list %s prints the new entry", r.path)
	}
	return nil
}

func stateText(k, next keyfile.Key) string {
	if k.Staged {
		return "staged"
	}
	return "used until " + next.UsedSince().Format(time.DateTime) + ", when " + next.ID + " took its place"
}

// endsSessions reports whether sessions depend on keys of a kind.
func endsSessions(kind keyfile.Kind) bool { return kind != keyfile.API }

// consequences returns which sessions end with a key that was used until a time.
// Processes that read the next key later went on with this one until then.
func consequences(kind keyfile.Kind, until time.Time) string {
	at := until.Format(time.DateTime)
	switch kind {
	case keyfile.Discharger:
		return "sessions end whose caveats were sealed to it: those that were minted before " + at + ", or before their\n" +
			"homeserver had the next key"
	case keyfile.Refresh:
		return "sessions in mode rotate end whose client has no newer refresh token: those that were not refreshed since\n" +
			at + ", or since the service read the next key"
	case keyfile.Seal:
		return "sessions end whose caveats were sealed with it, once its public key is in retired_public_keys at the service:\n" +
			"those that were minted before " + at + ", or before the homeserver read the next key"
	case keyfile.Root:
		return "sessions end that were minted with it: those that were minted before " + at + ", or before the\n" +
			"homeserver read the next key"
	case keyfile.API:
		return "no session ends. It works until its SHA-256 is taken out of the service's configuration."
	}
	return ""
}

func countText(n int, err error) string {
	if err != nil {
		return "their number is unknown: " + command.Plain(err.Error())
	}
	return fmt.Sprintf("live sessions among these, by the store: at most %d, and more if a process read the next key later", n)
}

// count counts the live sessions that depend on a key of a kind that was
// used until a time, in a backup of the store.
func (r *retirement) count(ctx context.Context, ring *keyfile.Ring, kind keyfile.Kind, until time.Time) (n int, err error) {
	cfg, err := setup.LoadConfig(r.options)
	if err != nil {
		return 0, err
	}
	name := ring.Peer.Name // empty: the service's
	switch {
	case cfg.Store.Redis != nil:
		return 0, errors.New("the store is in Redis, which has no list of all sessions")
	case name != "" && !registers(cfg, name):
		return 0, fmt.Errorf("the configuration has no homeserver %s; --config names that of the service", command.Quoted(name))
	}
	if _, err := os.Stat(cfg.BoltFile()); err != nil {
		return 0, fmt.Errorf("the service's store is not on this machine: %w", err)
	}
	b, tmp, err := backup.Take(ctx, r.t, cfg, cmp.Or(r.address, httpd.Dialable(cfg.AdminListen)), "", "discharger-keys.*")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp)) }()
	err = b.EachSession(func(user store.UserKey, record []byte) error {
		var session session.Record
		if err := session.UnmarshalBinary(record); err != nil {
			return err
		}
		if !session.Over() && (name == "" || user.Homeserver == name) && depends(&session, kind, until, cfg.Discharge.ActivationWindow) {
			n++
		}
		return nil
	})
	return n, err
}

// registers reports whether a homeserver of a name is registered.
func registers(cfg *config.Config, name string) bool {
	return cfg.Gateway != nil && cfg.Gateway.Name == name ||
		slices.ContainsFunc(cfg.Homeservers, func(h config.Homeserver) bool { return h.Name == name })
}

// depends reports whether a session may need a key that was used until a time. The
// times of records and of keys are of whole seconds. A record is made by the first
// discharge, which may be as late after the caveat as the activation window is long.
func depends(r *session.Record, kind keyfile.Kind, until time.Time, window time.Duration) bool {
	end := until.Add(time.Second)
	if kind == keyfile.Refresh {
		return r.Mode == caveat.ModeRotate && r.LastUsed < end.UnixMilli()
	}
	return r.Created < end.Add(window).UnixMilli()
}
