package backup

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/discharger/discharger/cmd/discharger/storage"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
)

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
