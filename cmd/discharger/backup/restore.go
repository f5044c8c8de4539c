package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/logging"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/cmd/discharger/storage"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/failover"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store/backup"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/redis"
)

// RestoreCommand returns the command "restore".
func RestoreCommand() command.Command {
	return command.Command{
		Name: "restore", Args: "[flags] file", Short: "Make a store from a backup: in a file, or in an empty Redis.",
		Example: "discharger restore --config discharger.yaml --replace /var/backups/sessions.db",
		Long: `
The backup is read completely first; a damaged one changes nothing. Revocations since
then are replayed from the journal. If the journal is incomplete, every session needs
a new login, and clients keep their encryption keys. So do sessions that were
activated since.

The service must not be running. An existing store is an error, unless --replace moves
it aside. The new files belong to the user who runs this command; run as root, it
gives them to the owner of their directory.

The journal and the other files in data_dir stay where they are. If all of them are
replaced by old copies instead, the revocations since are lost.`,
		Needs: []string{"file"}, Max: 1,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			options := setup.ConfigFlags(t, f)
			replace := f.Bool("replace", false, "move an existing store aside")
			return func(ctx context.Context, args []string) error {
				cfg, err := setup.LoadConfig(options)
				if err != nil {
					return err
				}
				if *replace && cfg.Store.Redis != nil {
					return command.Usagef("restore: --replace is for a store in a file")
				}
				b, err := backup.Open(args[0])
				if err != nil {
					return err
				}
				if err := setup.DataDir(cfg); err != nil {
					return err
				}
				return restore(ctx, t, cfg, b, *replace)
			}
		},
	}
}

func restore(ctx context.Context, t *command.Terminal, cfg *config.Config, b *backup.Backup, replace bool) (err error) {
	log := logging.New(t.Err, cfg.Log.Format, cfg.Log.Level).Main
	var r *backup.Restored
	if cfg.Store.Redis != nil {
		r, err = restoreRedis(ctx, cfg, b, log, t.Now)
	} else {
		if err := makeRoom(t, cfg, replace); err != nil {
			return err
		}
		var bc bolt.Config
		if bc, err = storage.BoltConfig(cfg, log, t.Now); err != nil {
			return command.Mark(err, command.ErrUnavailable)
		}
		bc.Replayer = failover.New(storage.Lifetime(cfg), log)
		r, err = bolt.Restore(ctx, bc, b)
		if bc.Journal != nil {
			err = errors.Join(err, bc.Journal.Close())
		}
		if err == nil {
			err = giveToOwner(filepath.Dir(cfg.BoltFile()), cfg.BoltFile(), cfg.JournalFile(), setup.MarkerFile(cfg))
		}
	}
	if err != nil {
		return err
	}
	return reportRestored(t.Out, cfg, b, r)
}

// giveToOwner gives files that root has made to the owner of their directory, the user
// of the service.
func giveToOwner(dir string, files ...string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	for _, name := range files {
		if err := os.Chown(name, int(owner.Uid), int(owner.Gid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// makeRoom moves an existing store aside, or returns an error.
func makeRoom(t *command.Terminal, cfg *config.Config, replace bool) error {
	path := cfg.BoltFile()
	_, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !replace:
		return fmt.Errorf("%w, %s; --replace moves it aside", backup.ErrExists, path)
	}
	aside, err := bolt.MoveAside(path, t.Now())
	if err == nil {
		t.Say("moved %s to %s", path, aside)
	}
	return command.Mark(err, command.ErrUnavailable)
}

func restoreRedis(ctx context.Context, cfg *config.Config, b *backup.Backup, log *slog.Logger, now func() time.Time) (*backup.Restored, error) {
	keys, err := setup.Keys(cfg)
	if err != nil {
		return nil, err
	}
	rc, err := storage.RedisConfig(cfg, keys, log, now)
	if err != nil {
		return nil, err
	}
	if cfg.Journal().Enabled {
		if rc.Journal, err = journal.Open(storage.JournalConfig(cfg, log, now)); err != nil {
			return nil, command.Mark(err, command.ErrUnavailable)
		}
		defer rc.Journal.Close()
	}
	return redis.Restore(ctx, rc, b)
}

// shownAgain bounds the listed revocations.
const shownAgain = 20

// reportRestored prints the contents of the new store, and the losses.
func reportRestored(w io.Writer, cfg *config.Config, b *backup.Backup, r *backup.Restored) error {
	at := b.Time().UTC().Format(time.RFC3339)
	fmt.Fprintf(w, "restored       %d sessions, as they were at %s\n", b.Sessions, at)
	fmt.Fprintf(w, "revoked again  %d, from %s\n", len(r.Again), cfg.JournalFile())
	for i := range r.Again {
		if i == shownAgain {
			fmt.Fprintf(w, "               and %d more\n", len(r.Again)-i)
			break
		}
		fmt.Fprintf(w, "               %s\n", describeEntry(&r.Again[i]))
	}
	if r.Vouched {
		fmt.Fprintf(w, "unknown        sessions activated since %s: they log in again\n", at)
	} else {
		fmt.Fprintf(w, "unknown        all since %s, revocations included: every session activated before now logs in again\n", at)
	}
	_, err := fmt.Fprintln(w, "Clients that log in again keep their encryption keys.")
	return err
}

// describeEntry returns a line with the scope and the time of a revocation.
func describeEntry(e *revocation.Revocation) string {
	at := time.UnixMilli(e.At).UTC().Format(time.RFC3339)
	what := "all sessions"
	switch e.Kind {
	case revocation.KindSession:
		what = "session " + e.Session.String()
	case revocation.KindDevice:
		what = "a device"
	case revocation.KindUser:
	default:
		return fmt.Sprintf("%s of %s, %s", what, command.Quoted(e.Homeserver), at)
	}
	return fmt.Sprintf("%s of %s at %s, %s", what, command.Quoted(e.User), command.Quoted(e.Homeserver), at)
}
