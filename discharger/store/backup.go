package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// A backup is a stream: a line of text, then records, then an end. It does not
// depend on what the store is made of.
//
//	discharger-backup-1 {"store":"…","at":…,"commit":…,"missing":…,"all":…}
//	kind(1) length(uvarint) content
//	…
//	'e' length count(uvarint) sha256(32)
//
//	kind  content
//	'u'   homeserver user expiry(4) record              of a user
//	's'   homeserver user session(16) expiry(4) record  of a session
//	'd'   homeserver user device(8) expiry(4) record    of a device
//	'h'   homeserver record                             of a homeserver
//	'f'   homeserver until(8, Unix ms) data             an event of a homeserver's feed
//
// Names have their length in front, as an unsigned varint. Count is of records,
// and the digest of everything before the 'e'. Users come in order: the record
// of a user, then those of the user's sessions; devices come after all of them.
const backupMagic = "discharger-backup-1 "

// maxFrame bounds a record of a backup.
const maxFrame = maxRecord + 3*maxName

const (
	backupUser       = 'u'
	backupSession    = 's'
	backupDevice     = 'd'
	backupHomeserver = 'h'
	backupEvent      = 'f'
	backupEnd        = 'e'
)

// BackupHeader is what a backup says of the store that it was made of.
type BackupHeader struct {
	Store   string `json:"store"`   // its identity
	At      int64  `json:"at"`      // when it was made, Unix ms by the store's clock
	Commit  uint64 `json:"commit"`  // number of the last commit in it
	Missing int64  `json:"missing"` // losses, as in [session.Losses]
	All     int64  `json:"all"`
}

// Time returns when the backup was made.
func (h BackupHeader) Time() time.Time { return time.UnixMilli(h.At) }

// backupWriter writes a backup.
type backupWriter struct {
	w     *bufio.Writer
	sum   hash.Hash
	count uint64
}

func newBackupWriter(w io.Writer, h BackupHeader) (*backupWriter, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	b := &backupWriter{w: bufio.NewWriterSize(w, 1<<16), sum: sha256.New()}
	return b, b.write([]byte(backupMagic + string(text) + "\n"))
}

func (b *backupWriter) write(p []byte) error {
	b.sum.Write(p)
	_, err := b.w.Write(p)
	return err
}

func (b *backupWriter) frame(kind byte, content ...[]byte) error {
	joined := bytes.Join(content, nil)
	b.count++
	return errors.Join(b.write(binary.AppendUvarint([]byte{kind}, uint64(len(joined)))), b.write(joined))
}

func (b *backupWriter) end() error {
	content := b.sum.Sum(binary.AppendUvarint(nil, b.count))
	if err := b.write(binary.AppendUvarint([]byte{backupEnd}, uint64(len(content)))); err != nil {
		return err
	}
	return errors.Join(b.write(content), b.w.Flush())
}

// Backup writes a backup of the store as it is at one instant. Others go on
// meanwhile, but a write that needs a larger file waits for it: w should be a
// file.
func (b *Bolt) Backup(ctx context.Context, w io.Writer) error {
	err := b.view(ctx, func(tx *bbolt.Tx) error { return writeBackup(ctx, tx, w, b.cfg.Now()) }, nil)
	if err != nil {
		return fmt.Errorf("back up store: %w", err)
	}
	return nil
}

// BackupFile writes a backup of a file that no process has open.
func BackupFile(ctx context.Context, cfg BoltConfig, w io.Writer) error {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.LockTimeout == 0 {
		cfg.LockTimeout = time.Second
	}
	b := &Bolt{cfg: cfg}
	_, err := os.Stat(cfg.Path)
	if err == nil {
		err = b.inspect()
	}
	if err == nil {
		err = guard(func() error {
			db, err := bbolt.Open(cfg.Path, 0, b.options(true))
			if err != nil {
				return explain(err)
			}
			defer db.Close()
			return db.View(func(tx *bbolt.Tx) error { return writeBackup(ctx, tx, w, cfg.Now()) })
		})
	}
	if err != nil {
		return fmt.Errorf("back up store %s: %w", cfg.Path, err)
	}
	return nil
}

func writeBackup(ctx context.Context, tx *bbolt.Tx, w io.Writer, now time.Time) error {
	id, err := readID(tx)
	if err == nil && id == "" {
		err = errors.New("the file is empty")
	}
	if err != nil {
		return err
	}
	meta := tx.Bucket(bucketMeta)
	l := readLosses(meta)
	out, err := newBackupWriter(w, BackupHeader{
		Store: id, At: now.UnixMilli(), Commit: readNumber(meta, keyCommit), Missing: l.Missing, All: l.All,
	})
	if err != nil {
		return err
	}
	n := 0
	check := func(err error) error {
		if n++; n%1000 == 0 {
			err = errors.Join(err, ctx.Err())
		}
		return err
	}
	err = tx.Bucket(bucketRecords).ForEach(func(k, v []byte) error { return check(backupRow(out, k, v, len(caveat.SessionID{}), now)) })
	if devices := tx.Bucket(bucketDevices); err == nil && devices != nil {
		err = devices.ForEach(func(k, v []byte) error { return check(backupRow(out, k, v, len(revocation.DeviceTag{}), now)) })
	}
	if err == nil {
		err = tx.Bucket(bucketHomeservers).ForEach(func(k, v []byte) error {
			name, _, ok := cutName(k)
			if !ok {
				return errDamaged
			}
			return check(out.frame(backupHomeserver, appendText(nil, name), v))
		})
	}
	if err == nil {
		err = backupFeeds(out, tx, now)
	}
	if err != nil {
		return err
	}
	return out.end()
}

// backupRow writes the row of a user, a session or a device.
func backupRow(out *backupWriter, k, v []byte, idLen int, now time.Time) error {
	homeserver, rest, ok := cutName(k)
	user, id, ok2 := cutName(rest)
	if !ok || !ok2 || len(id) != idLen {
		return errDamaged
	}
	e, _, err := splitRow(v)
	if err != nil {
		return err
	}
	names := appendText(appendText(nil, homeserver), user)
	switch {
	case idLen == len(revocation.DeviceTag{}):
		return out.frame(backupDevice, names, id, v)
	case caveat.SessionID(id) == caveat.SessionID{}:
		return out.frame(backupUser, names, v)
	case e.passed(now):
		return nil
	}
	return out.frame(backupSession, names, id, v)
}

func backupFeeds(out *backupWriter, tx *bbolt.Tx, now time.Time) error {
	feeds := tx.Bucket(bucketFeeds)
	if feeds == nil {
		return nil
	}
	return feeds.ForEachBucket(func(k []byte) error {
		name, _, ok := cutName(k)
		if !ok {
			return errDamaged
		}
		return feeds.Bucket(k).ForEach(func(k, v []byte) error {
			until, _, err := splitEvent(v)
			if _, ok := eventNumber(k); !ok || err != nil || until <= now.UnixMilli() {
				return err
			}
			return out.frame(backupEvent, appendText(nil, name), v)
		})
	})
}

// cutName takes a name off a key.
func cutName(key []byte) (name string, rest []byte, ok bool) {
	if len(key) < 2 {
		return "", nil, false
	}
	n := int(binary.BigEndian.Uint16(key))
	if len(key) < 2+n {
		return "", nil, false
	}
	return string(key[2 : 2+n]), key[2+n:], true
}

// Backup is a backup in a file, which has been read completely and is whole.
type Backup struct {
	BackupHeader
	Users, Sessions, Devices, Homeservers, Events int // records of them

	path string
	sum  [sha256.Size]byte
}

// backupRecord is one record of a backup.
type backupRecord struct {
	kind    byte
	user    discharger.UserKey // of a homeserver or an event: no user
	session caveat.SessionID
	device  revocation.DeviceTag
	row     []byte // expiry and record, the record of a homeserver, or until and data of an event
}

// expires returns when a record expires; zero: never.
func (r *backupRecord) expires() (time.Time, []byte, error) {
	e, record, err := splitRow(r.row)
	if err != nil || e == 0 {
		return time.Time{}, record, err
	}
	return time.Unix(int64(e), 0), record, nil
}

var errBackup = errors.New("it is not a backup of this version, or damaged")

// OpenBackup reads a file, and refuses one that is not whole.
func OpenBackup(path string) (*Backup, error) {
	b := &Backup{path: path}
	err := b.each(func(r *backupRecord) error {
		switch r.kind {
		case backupUser:
			b.Users++
		case backupSession:
			b.Sessions++
		case backupDevice:
			b.Devices++
		case backupHomeserver:
			b.Homeservers++
		case backupEvent:
			b.Events++
		}
		return nil
	}, &b.BackupHeader, &b.sum)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// EachSession calls f with the encoded record of every session in the backup.
func (b *Backup) EachSession(f func(user discharger.UserKey, record []byte) error) error {
	return b.records(func(r *backupRecord) error {
		if r.kind != backupSession {
			return nil
		}
		_, record, err := r.expires()
		if err != nil {
			return err
		}
		return f(r.user, record)
	})
}

// records calls f for every record. The file must be the same still.
func (b *Backup) records(f func(*backupRecord) error) error {
	var h BackupHeader
	var sum [sha256.Size]byte
	if err := b.each(f, &h, &sum); err != nil {
		return err
	}
	if sum != b.sum {
		return fmt.Errorf("read backup %s: it has changed", b.path)
	}
	return nil
}

func (b *Backup) each(f func(*backupRecord) error, h *BackupHeader, sum *[sha256.Size]byte) error {
	file, err := os.Open(b.path)
	if err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	defer file.Close()
	r := &backupReader{r: bufio.NewReaderSize(file, 1<<16), sum: sha256.New()}
	if err := r.all(f, h); err != nil {
		return fmt.Errorf("read backup %s: %w", b.path, err)
	}
	*sum = [sha256.Size]byte(r.sum.Sum(nil))
	return nil
}

type backupReader struct {
	r     *bufio.Reader
	sum   hash.Hash
	count uint64
}

// cut makes the end of the file an error that says so.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it is cut short")
	}
	return err
}

func (r *backupReader) all(f func(*backupRecord) error, h *BackupHeader) error {
	line, err := r.r.ReadSlice('\n')
	text, ok := bytes.CutPrefix(line, []byte(backupMagic))
	switch {
	case errors.Is(err, io.EOF) && bytes.HasPrefix([]byte(backupMagic), line[:min(len(line), len(backupMagic))]):
		return errors.New("it is cut short")
	case err != nil || !ok || json.Unmarshal(text, h) != nil || checkID(h.Store) != nil:
		return errBackup
	}
	r.sum.Write(line)
	for {
		before := r.sum.Sum(nil)
		kind, content, err := r.frame()
		if err != nil {
			return cut(err)
		}
		if kind == backupEnd {
			return r.end(content, before)
		}
		r.count++
		record, err := parseRecord(kind, content)
		if err != nil {
			return err
		}
		if err := f(record); err != nil {
			return err
		}
	}
}

func (r *backupReader) frame() (byte, []byte, error) {
	kind, err := r.r.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(r.r)
	if err != nil {
		return 0, nil, err
	}
	if n > maxFrame {
		return 0, nil, errBackup
	}
	content := make([]byte, n)
	if _, err := io.ReadFull(r.r, content); err != nil {
		return 0, nil, err
	}
	r.sum.Write(binary.AppendUvarint([]byte{kind}, n))
	r.sum.Write(content)
	return kind, content, nil
}

// end compares count and digest, and expects nothing after them.
func (r *backupReader) end(content, sum []byte) error {
	count, n := binary.Uvarint(content)
	if n <= 0 || count != r.count || !bytes.Equal(content[n:], sum) {
		return errors.New("it was altered: its digest is another one")
	}
	if _, err := r.r.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("it was altered: something follows its end")
	}
	return nil
}

func parseRecord(kind byte, content []byte) (*backupRecord, error) {
	r, d := &backupRecord{kind: kind}, entryDecoder{b: content}
	r.user.Homeserver = d.string()
	switch kind {
	case backupUser, backupSession, backupDevice:
		r.user.User = d.string()
	case backupHomeserver, backupEvent:
	default:
		return nil, errBackup
	}
	switch kind {
	case backupSession:
		copy(r.session[:], d.bytes(len(r.session)))
	case backupDevice:
		copy(r.device[:], d.bytes(len(r.device)))
	}
	if r.row = d.b; d.bad || len(r.row) == 0 {
		return nil, errBackup
	}
	return r, nil
}
