package reference

import (
	"io"
	"net/http"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// newBbolt returns a handler that answers once a record of the size of a session's
// is on disk. Batch lets simultaneous requests share a sync; the delay is that of the
// discharger's store, which is better than bbolt's default.
func newBbolt(s Spec) (http.Handler, error) {
	db, err := bbolt.Open(filepath.Join(s.Dir, "reference.db"), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return nil, err
	}
	db.MaxBatchDelay = time.Millisecond
	bucket, value := []byte("records"), make([]byte, 80)
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			key := body[:min(len(body), 64)] // ids of caveats share a prefix and differ within 64 bytes
			err = db.Batch(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Put(key, value) })
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(s.Body) // a failed write shows as a failed request
	}), nil
}
