// Package backup reads and writes backups of a store: its records at one instant,
// in one file. A backup does not depend on the kind of store. It is a line of text,
// then records, then an end:
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
package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/limits"
	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/record"
)

const magic = "discharger-backup-1 "

// maxFrame bounds a record of a backup.
const maxFrame = limits.MaxRecord + 3*limits.MaxName

// Kinds of records.
const (
	User       = 'u'
	Session    = 's'
	Device     = 'd'
	Homeserver = 'h'
	Event      = 'f'
	end        = 'e'
)

// Header describes the store of a backup.
type Header struct {
	Store   string `json:"store"`   // its identity
	At      int64  `json:"at"`      // when it was made, Unix ms by the store's clock
	Commit  uint64 `json:"commit"`  // number of the last commit in it
	Missing int64  `json:"missing"` // losses, as in [store.Losses]
	All     int64  `json:"all"`
}

// Time returns when the backup was made.
func (h Header) Time() time.Time { return time.UnixMilli(h.At) }

// Writer writes a backup.
type Writer struct {
	file  *bufio.Writer
	sum   hash.Hash
	w     io.Writer // to both
	count uint64
}

// NewWriter returns a writer that has written the header.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	b := &Writer{file: bufio.NewWriterSize(w, 1<<16), sum: sha256.New()}
	b.w = io.MultiWriter(b.sum, b.file)
	_, err = fmt.Fprintf(b.w, "%s%s\n", magic, text)
	return b, err
}

// Frame writes one record, in parts.
func (b *Writer) Frame(kind byte, content ...[]byte) error {
	joined := bytes.Join(content, nil)
	b.count++
	_, err := b.w.Write(append(binary.AppendUvarint([]byte{kind}, uint64(len(joined))), joined...))
	return err
}

// End writes the number of records and the digest.
func (b *Writer) End() error {
	err := b.Frame(end, binary.AppendUvarint(nil, b.count), b.sum.Sum(nil))
	return errors.Join(err, b.file.Flush())
}

// Backup is a backup in a file, which has been read completely and is whole.
type Backup struct {
	Header
	Users, Sessions, Devices, Homeservers, Events int // records of them

	path string
	sum  []byte // its digest
}

// Record is one record of a backup.
type Record struct {
	Kind    byte
	User    store.UserKey // of a homeserver or an event: no user
	Session caveat.SessionID
	Device  revocation.DeviceTag
	Row     []byte // expiry and record, the record of a homeserver, or until and data of an event
}

// Expires returns when a record expires; zero: never.
func (r *Record) Expires() (time.Time, []byte, error) {
	e, record, err := record.SplitRow(r.Row)
	if err != nil || e == 0 {
		return time.Time{}, record, err
	}
	return time.Unix(int64(e), 0), record, nil
}

var errBackup = errors.New("not a backup of this version, or damaged")

// Open reads a file, and refuses one that is not whole.
func Open(path string) (b *Backup, err error) {
	b = &Backup{path: path}
	counts := map[byte]*int{User: &b.Users, Session: &b.Sessions, Device: &b.Devices, Homeserver: &b.Homeservers, Event: &b.Events}
	b.Header, b.sum, err = b.each(func(r *Record) error {
		*counts[r.Kind]++
		return nil
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// EachSession calls f with the encoded record of every session in the backup.
func (b *Backup) EachSession(f func(user store.UserKey, record []byte) error) error {
	return b.Records(func(r *Record) error {
		if r.Kind != Session {
			return nil
		}
		_, record, err := r.Expires()
		if err != nil {
			return err
		}
		return f(r.User, record)
	})
}

// Records calls f for every record. The file must be the same still.
func (b *Backup) Records(f func(*Record) error) error {
	_, sum, err := b.each(f)
	if err == nil && !bytes.Equal(sum, b.sum) {
		err = fmt.Errorf("read backup %s: it has changed", b.path)
	}
	return err
}

// each calls f for every record, and returns the header and the digest.
func (b *Backup) each(f func(*Record) error) (h Header, sum []byte, err error) {
	file, err := os.Open(b.path)
	if err != nil {
		return h, nil, fmt.Errorf("read backup: %w", err)
	}
	defer file.Close()
	r := &backupReader{r: bufio.NewReaderSize(file, 1<<16), sum: sha256.New()}
	if err := r.all(f, &h); err != nil {
		return h, nil, fmt.Errorf("read backup %s: %w", b.path, err)
	}
	return h, r.sum.Sum(nil), nil
}

type backupReader struct {
	r     *bufio.Reader
	sum   hash.Hash
	count uint64
}

// cut replaces the error at the end of a truncated file.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("backup is truncated")
	}
	return err
}

func (r *backupReader) all(f func(*Record) error, h *Header) error {
	line, err := r.r.ReadSlice('\n')
	text, ok := bytes.CutPrefix(line, []byte(magic))
	switch {
	case errors.Is(err, io.EOF) && bytes.HasPrefix([]byte(magic), line[:min(len(line), len(magic))]):
		return errors.New("backup is truncated")
	case err != nil || !ok || json.Unmarshal(text, h) != nil || marker.CheckID(h.Store) != nil:
		return errBackup
	}
	r.sum.Write(line)
	for {
		kind, content, err := r.frame()
		if err != nil {
			return cut(err)
		}
		if kind == end {
			return r.end(content)
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
	if kind != end { // which has the digest of the rest
		r.sum.Write(binary.AppendUvarint([]byte{kind}, n))
		r.sum.Write(content)
	}
	return kind, content, nil
}

// end compares count and digest, and expects nothing after them.
func (r *backupReader) end(content []byte) error {
	count, n := binary.Uvarint(content)
	if n <= 0 || count != r.count || !bytes.Equal(content[n:], r.sum.Sum(nil)) {
		return errors.New("backup was altered: digest differs")
	}
	if _, err := r.r.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("backup was altered: bytes follow its end")
	}
	return nil
}

func parseRecord(kind byte, content []byte) (*Record, error) {
	r, d := &Record{Kind: kind}, record.Decoder{B: content}
	r.User.Homeserver = d.String()
	switch kind {
	case User:
		r.User.User = d.String()
	case Session:
		r.User.User, r.Session = d.String(), caveat.SessionID(d.Bytes(len(r.Session)))
	case Device:
		r.User.User = d.String()
		copy(r.Device[:], d.Bytes(len(r.Device)))
	case Homeserver, Event:
	default:
		return nil, errBackup
	}
	if r.Row = d.B; d.Bad || len(r.Row) == 0 {
		return nil, errBackup
	}
	return r, nil
}
