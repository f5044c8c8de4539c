package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/store"
)

// pathBackup is where operators fetch a backup of the store in a file.
const pathBackup = "/backup"

func backupCommand() command {
	return command{
		name: "backup", args: "[flags] file", about: "Write a backup of the store, also while the service runs.",
		more: `
The file is new, has mode 0600, and is complete: all that was acknowledged before
the backup began is in it. Of a running service it is fetched at admin_listen, as
configured, with a proof of the service's key file. Keys are not in it. Ended
sessions that are remembered are in it, and in the number that it prints.

This is for the store in one file. Redis has backups of its own.`,
		max: 1,
		setup: func(t *terminal, f *flag.FlagSet) action {
			options := configFlags(t, f)
			address := f.String("address", "", "`host:port` to fetch it at, instead of what is configured")
			return func(ctx context.Context, args []string) error {
				if len(args) == 0 {
					return usagef("backup: into which file?")
				}
				cfg, err := loadConfig(options)
				if err != nil {
					return err
				}
				if cfg.Store.Redis != nil {
					return mark(errInRedis, errConfig)
				}
				if *address == "" {
					*address = dialable(cfg.AdminListen)
				}
				return backup(ctx, t, cfg, *address, args[0])
			}
		},
	}
}

var errInRedis = errors.New("the store is in Redis, which has backups of its own")

// backup writes the file under another name first, and reads it.
func backup(ctx context.Context, t *terminal, cfg *config.Config, address, path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s is there already", path), err)
	}
	b, tmp, err := takeBackup(ctx, t, cfg, address, filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, path); err != nil { // which replaces nothing
		return fmt.Errorf("write backup: %w", err)
	}
	fmt.Fprintf(t.out, "backed up  %d sessions, as of %s\n", b.Sessions, b.Time().UTC().Format(time.RFC3339))
	return nil
}

// takeBackup writes a backup into a new file, of mode 0600 and with a name of the
// pattern, and reads it. The caller removes the file.
func takeBackup(ctx context.Context, t *terminal, cfg *config.Config, address, dir, pattern string) (*store.Backup, string, error) {
	tmp, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, "", fmt.Errorf("write backup: %w", err)
	}
	err = store.BackupFile(ctx, store.BoltConfig{Path: cfg.BoltFile(), LockTimeout: 100 * time.Millisecond, Now: t.now}, tmp)
	if errors.Is(err, store.ErrStoreInUse) {
		err = fetchBackup(ctx, cfg, address, tmp)
	}
	var b *store.Backup
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		b, err = store.OpenBackup(tmp.Name())
	}
	if err != nil {
		return nil, "", errors.Join(err, os.Remove(tmp.Name()))
	}
	return b, tmp.Name(), nil
}

// fetchBackup asks the service that has the store open.
func fetchBackup(ctx context.Context, cfg *config.Config, address string, w io.Writer) error {
	keys, err := loadKeys(cfg)
	if err != nil {
		return err
	}
	url := "http://" + address + pathBackup
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+backupProof(keys))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return mark(fmt.Errorf("the store is in use, and its service cannot be asked: %w", err), errUnavailable)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return mark(fmt.Errorf("%s: %s: %s", url, resp.Status, quoted(string(text))), errUnavailable)
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return mark(fmt.Errorf("%s: %w", url, err), errUnavailable)
	}
	return nil
}

// backupProof returns a secret that is derived from the key file.
func backupProof(keys *keyfile.Ring) string {
	secret := keys.Of(keyfile.Store)[0].Secret()
	mac := hmac.New(sha256.New, secret[:])
	mac.Write([]byte("discharger backup"))
	return hex.EncodeToString(mac.Sum(nil))
}

// backupTimeout bounds the sending of a backup.
const backupTimeout = time.Hour

// backups answers requests for a backup. It is written to a file beside the store
// first, so that a slow reader does not hold up the store.
func (d *daemon) backups() http.Handler {
	proof, dir := "Bearer "+backupProof(d.keys), filepath.Dir(d.cfg.BoltFile()) // neither changes with a reload
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := d.parts.store.(*boltStore)
		switch {
		case !hmac.Equal([]byte(r.Header.Get("Authorization")), []byte(proof)):
			http.Error(w, "this needs a proof of the service's key file", http.StatusForbidden)
			return
		case !ok:
			http.Error(w, errInRedis.Error(), http.StatusConflict)
			return
		}
		err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(backupTimeout))
		if err != nil {
			d.log.WarnContext(r.Context(), "backup may be cut short by a timeout", slog.Any("error", err))
		}
		f, err := os.CreateTemp(dir, ".backup.*") // mode 0600
		if err == nil {
			defer os.Remove(f.Name())
			defer f.Close()
			err = b.Backup(r.Context(), f)
		}
		if err != nil {
			d.log.ErrorContext(r.Context(), "backup failed", slog.Any("error", err))
			http.Error(w, "backup failed: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, f)
		d.log.InfoContext(r.Context(), "backup was sent")
	})
}
