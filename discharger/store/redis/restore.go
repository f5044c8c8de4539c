package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/backup"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/record"
)

// Restore fills an empty Redis from a backup. It refuses a Redis with a record
// of any store, and no process may use it meanwhile. Losses are recorded as by
// the restore of a bbolt file. The journal is replayed when a process with it
// first opens the store: Again has all its entries since the backup.
func Restore(ctx context.Context, cfg Config, from *backup.Backup) (out *backup.Restored, err error) {
	defer wrap(&err, "restore")
	mark, jour := cfg.Marker, cfg.Journal
	cfg.Marker, cfg.Journal = nil, nil
	r, err := Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if out, err = r.restore(ctx, from, jour); err == nil {
		err = marker.Remember(mark, *r.id.Load())
	}
	return out, errors.Join(err, r.Close())
}

func (r *Store) restore(ctx context.Context, from *backup.Backup, j *journal.Journal) (out *backup.Restored, err error) {
	if err := r.checkEmpty(ctx); err != nil {
		return nil, err
	}
	now, err := r.serverTime(ctx)
	if err != nil {
		return nil, err
	}
	out, first, err := backup.Plan(j, from, now)
	if err != nil {
		return nil, err
	}
	// Until the restore is complete, a session in the store may have been
	// revoked by a record that is not there yet.
	partial := out.Losses
	partial.All = from.Incomplete()
	if err := r.writeLosses(ctx, partial); err != nil {
		return nil, err
	}
	im := importer{r: r}
	if err := errors.Join(from.Records(func(rec *backup.Record) error { return im.add(ctx, rec) }), im.flush(ctx)); err != nil {
		return nil, err
	}
	if err := r.writeLosses(ctx, out.Losses); err != nil {
		return nil, err
	}
	if j == nil {
		return out, nil
	}
	if out.Again, err = j.Since(first); err != nil {
		return nil, err
	}
	return out, j.SetPrimaries(nil) // no primary has its entries
}

// scanAtOnce is the number of keys that one SCAN reads.
const scanAtOnce = 1000

// checkEmpty returns an error if there is a record or a feed of any store.
func (r *Store) checkEmpty(ctx context.Context) error {
	return r.client.Primaries(ctx, func(ctx context.Context, node *redis.Client) error {
		keys := node.Scan(ctx, 0, "ds{*", scanAtOnce).Iterator()
		for keys.Next(ctx) {
			_, name, _ := strings.Cut(keys.Val(), "}")
			kind, _, named := strings.Cut(name, ":")
			switch {
			case !named, kind == "homeserver", kind == "feed":
				return fmt.Errorf("%w: Redis has key %s", backup.ErrExists, keys.Val())
			}
		}
		return keys.Err()
	})
}

// writeLosses writes losses beside every identity. All replaces the earlier value.
func (r *Store) writeLosses(ctx context.Context, l store.Losses) error {
	return r.changeLosses(ctx, func(_ int, m *lossMark) {
		m.missing, m.all = max(m.missing, l.Missing), l.All
	})
}

// importAtOnce bounds the changes of one write.
const importAtOnce = 200

// importer collects the records of one user for a write.
type importer struct {
	r *Store
	w store.Write
}

func (im *importer) add(ctx context.Context, rec *backup.Record) error {
	switch rec.Kind {
	case backup.Homeserver:
		return done(im.r.swap(ctx, im.r.homeserverCall(rec.User.Homeserver, nil, rec.Row, nil), false))
	case backup.Event:
		until, data, err := record.SplitEvent(rec.Row)
		if err != nil {
			return err
		}
		return im.r.publish(ctx, rec.User.Homeserver, []revocation.Line{{Data: data, Until: until}}, false)
	}
	if rec.User != im.w.User || len(im.w.Changes) >= importAtOnce {
		if err := im.flush(ctx); err != nil {
			return err
		}
		im.w.User = rec.User
	}
	expires, record, err := rec.Expires()
	if err != nil {
		return err
	}
	im.w.Changes = append(im.w.Changes, store.Change{Session: rec.Session, Device: rec.Device, New: record, Expires: expires})
	return nil
}

func (im *importer) flush(ctx context.Context) error {
	if len(im.w.Changes) == 0 {
		return nil
	}
	w := im.w
	im.w.Changes = nil
	return done(im.r.Swap(ctx, w))
}

// done returns an error for a write that found another record.
func done(ok bool, err error) error {
	if err == nil && !ok {
		return errors.New("another process writes to the store")
	}
	return err
}
