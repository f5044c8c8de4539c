// Package backup has the commands backup and restore of the store in a file, and the
// handler that sends a backup while the service has the store open.
package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/httpd"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/boltfile"
	"github.com/discharger/discharger/discharger/store/backup"
	"github.com/discharger/discharger/discharger/store/bolt"
)

// Command returns the command "backup".
func Command() command.Command {
	return command.Command{
		Name: "backup", Args: "[flags] file", Short: "Write a backup of the store, also while the service runs.",
		Example: "discharger backup --config discharger.yaml /var/backups/sessions.db",
		Long: `
The file is new, has mode 0600, and contains every write that was acknowledged before
the backup began. From a running service it is fetched at admin_listen, with a proof
of the service's key file. It contains no keys. Its number of sessions includes
tombstones of ended ones.

This is for the store in a file. Redis has backups of its own.`,
		Needs: []string{"file"}, Max: 1,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			options := setup.ConfigFlags(t, f)
			address := f.String("address", "", "`host:port` of the service for operators, instead of admin_listen")
			return func(ctx context.Context, args []string) error {
				cfg, err := setup.LoadConfig(options)
				if err != nil {
					return err
				}
				if cfg.Store.Redis != nil {
					return command.Mark(errInRedis, command.ErrConfig)
				}
				if *address == "" {
					*address = httpd.Dialable(cfg.AdminListen)
				}
				return writeBackup(ctx, t, cfg, *address, args[0])
			}
		},
	}
}

var errInRedis = errors.New("the store is in Redis, which has backups of its own")

// writeBackup writes the file under another name first, and reads it.
func writeBackup(ctx context.Context, t *command.Terminal, cfg *config.Config, address, path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s exists", path), err)
	}
	b, tmp, err := Take(ctx, t, cfg, address, filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, path); err != nil { // a link replaces nothing
		return fmt.Errorf("write backup: %w", err)
	}
	fmt.Fprintf(t.Out, "backed up  %d sessions, as of %s\n", b.Sessions, b.Time().UTC().Format(time.RFC3339))
	return nil
}

// Take writes a backup to a new file, of mode 0600 and with a name of the pattern, and
// reads it. The caller removes the file.
func Take(ctx context.Context, t *command.Terminal, cfg *config.Config, address, dir, pattern string) (*backup.Backup, string, error) {
	tmp, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, "", fmt.Errorf("write backup: %w", err)
	}
	err = bolt.BackupFile(ctx, bolt.Config{Path: cfg.BoltFile(), LockTimeout: 100 * time.Millisecond}.WithClock(t.Now), tmp)
	if errors.Is(err, boltfile.ErrInUse) {
		err = fetchBackup(ctx, cfg, address, tmp)
	}
	var b *backup.Backup
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		b, err = backup.Open(tmp.Name())
	}
	if err != nil {
		return nil, "", errors.Join(err, os.Remove(tmp.Name()))
	}
	return b, tmp.Name(), nil
}

// fetchBackup fetches a backup from the service that has the store open.
func fetchBackup(ctx context.Context, cfg *config.Config, address string, w io.Writer) error {
	keys, err := setup.Keys(cfg)
	if err != nil {
		return err
	}
	err = httpd.Fetch(ctx, http.MethodPost, "http://"+address+PathBackup, "Bearer "+backupProof(keys), w)
	if err != nil {
		return fmt.Errorf("the store is in use, and its service sends no backup: %w", err)
	}
	return nil
}
