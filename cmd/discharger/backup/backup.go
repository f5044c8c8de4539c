// Package backup has the commands backup and restore of the store in a file, and the
// handler that sends a backup while the service has the store open.
package backup

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/httpd"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/cmd/discharger/storage"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/boltfile"
	"github.com/discharger/discharger/discharger/keyfile"
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

// PathBackup is the path of a backup of the store, for operators.
const PathBackup = "/backup"

// backupProof returns a secret that is derived from the key file.
func backupProof(keys *keyfile.Ring) string {
	secret := keys.Of(keyfile.Store)[0].Secret()
	mac := hmac.New(sha256.New, secret[:])
	mac.Write([]byte("discharger backup"))
	return hex.EncodeToString(mac.Sum(nil))
}

// backupTimeout bounds the sending of a backup.
const backupTimeout = time.Hour

// Handler answers requests for a backup. It is written to a file beside the store first,
// so that a slow reader does not block the store.
func Handler(cfg *config.Config, keys *keyfile.Ring, s *storage.Store, log *slog.Logger) http.Handler {
	proof, dir := "Bearer "+backupProof(keys), filepath.Dir(cfg.BoltFile()) // neither changes with a reload
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !hmac.Equal([]byte(r.Header.Get("Authorization")), []byte(proof)):
			http.Error(w, "a proof of the service's key file is missing", http.StatusForbidden)
			return
		case s.Bolt == nil:
			http.Error(w, errInRedis.Error(), http.StatusConflict)
			return
		}
		err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(backupTimeout))
		if err != nil {
			log.WarnContext(r.Context(), "backup may be cut short by a timeout", slog.Any("error", err))
		}
		f, err := os.CreateTemp(dir, ".backup.*") // mode 0600
		if err == nil {
			defer os.Remove(f.Name())
			defer f.Close()
			err = s.Bolt.Backup(r.Context(), f)
		}
		if err != nil {
			log.ErrorContext(r.Context(), "backup failed", slog.Any("error", err))
			http.Error(w, "backup failed: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, f)
		log.InfoContext(r.Context(), "backup was sent")
	})
}
