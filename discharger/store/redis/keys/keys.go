// Package keys is the layout of a store in Redis. bb is one of 256 short names, tag
// the HMAC of a name under the tag key, 128 bits in base64url.
//
//	ds{bb}tag             hash    a user's own record, sessions and devices
//	ds{bb}homeserver:tag  string  a homeserver's record
//	ds{bb}feed:tag        stream  its feed: until when an event is kept (Unix ms), and the event
//	ds{bb}lost:tag        string  until when it matters that events were dropped
//	ds{bb}store:tag       string  the identity of the store, for each bb
//	ds{bb}since:tag       string  when the data of bb began, and when its loss was accepted
//	ds{bb}beat:tag        stream  heartbeats, for one bb of each node
//	ds{bb}new:tag         hash    progress of the creation of the store, for the first bb
//	ds{bb}peers:tag       stream  revocations of processes with a journal, sealed, for the first bb
//
// The hash of a user and the identity that shows its loss have the same hash tag:
// they are on one node of a cluster and are lost together. The names bb use the
// 16384 slots of a cluster evenly.
//
// The fields of the hash of a user:
//
//	0            the user's own record       1  its second piece
//	16 bytes     a session, by its id
//	2 to 127     second piece of a session; the number is derived from the id
//	16 bytes 01  second piece of a session whose number is taken
//	d 8 bytes    a device, by its tag; its record is one piece
//
// Redis keeps a hash compact while no field or value is longer than 64 bytes. A
// longer record is therefore cut in two. The first piece is
//
//	expiry(4) place(1) record
//
// where place is 0 if there is no second piece, 1 if it is under the number, and 2
// if it is under the long name. A number takes two bytes at most. Numbers and long
// names differ in length from ids, so the kinds of fields are distinct.
package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"strconv"
	"sync"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/store/record"
)

const (
	HeaderSize = record.ExpirySize + 1 // bytes before the record in a first piece
	UserField  = "0"                   // field of a user's own record
	UserSecond = "1"                   // field of its second piece
	TagKeyLen  = 32                    // bytes
	Buckets    = 256                   // number of hash tags
	slots      = 16384
)

// Layout derives the keys of one store from its tag key.
type Layout struct {
	names    [Buckets]string
	Identity [Buckets]string // keys of the identity, by hash tag
	// Keys beside the identity: of losses, and of heartbeats.
	Losses, Beats [Buckets]string
	Birth         string    // key of the progress of its creation
	Stream        string    // key of the stream of revocations
	macs          sync.Pool // of hash.Hash
}

// New returns the layout of the store with a tag key.
func New(key secret.Bytes) *Layout {
	l := &Layout{names: bucketNames()}
	l.macs.New = func() any { return hmac.New(sha256.New, key) }
	_, tag := l.tag('s', "", "")
	for i, name := range l.names {
		l.Identity[i] = "ds{" + name + "}store:" + tag
		l.Losses[i] = "ds{" + name + "}since:" + tag
		l.Beats[i] = "ds{" + name + "}beat:" + tag
	}
	l.Birth = "ds{" + l.names[0] + "}new:" + tag
	l.Stream = "ds{" + l.names[0] + "}peers:" + tag
	return l
}

// User returns the key of the hash of a user, and the number of its hash tag.
func (l *Layout) User(homeserver, user string) (key string, bucket int) {
	bucket, tag := l.tag('u', homeserver, user)
	return "ds{" + l.names[bucket] + "}" + tag, bucket
}

// Homeserver returns the key of the record of a homeserver, and the number of its
// hash tag.
func (l *Layout) Homeserver(name string) (key string, bucket int) {
	bucket, tag := l.tag('h', name, "")
	return "ds{" + l.names[bucket] + "}homeserver:" + tag, bucket
}

// Feed returns the keys of a homeserver's feed and of its losses, and the number of
// their hash tag, which is that of the homeserver's record.
func (l *Layout) Feed(homeserver string) (key, lost string, bucket int) {
	bucket, tag := l.tag('h', homeserver, "")
	return "ds{" + l.names[bucket] + "}feed:" + tag, "ds{" + l.names[bucket] + "}lost:" + tag, bucket
}

func (l *Layout) tag(kind byte, a, b string) (bucket int, tag string) {
	sum := l.mac(kind, a, b)
	return int(sum[16]), base64.RawURLEncoding.EncodeToString(sum[:16])
}

func (l *Layout) mac(kind byte, a, b string) [sha256.Size]byte {
	mac := l.macs.Get().(hash.Hash)
	defer l.macs.Put(mac)
	mac.Reset()
	buf := make([]byte, 0, 256)
	buf = append(buf, kind)
	buf = binary.BigEndian.AppendUint16(buf, uint16(len(a)))
	buf = append(append(buf, a...), b...)
	mac.Write(buf)
	return [sha256.Size]byte(mac.Sum(buf[:0]))
}

// bucketNames returns for each 256th of the slots of a cluster the first name,
// in alphabetical order, that has such a slot.
func bucketNames() (names [Buckets]string) {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	for i := range letters {
		for j := range letters {
			name := string([]byte{letters[i], letters[j]})
			if at := int(crc16(name)) % slots / (slots / Buckets); names[at] == "" {
				names[at] = name
			}
		}
	}
	return names
}

// crc16 is CRC-16/XMODEM, from which a cluster derives a slot.
func crc16(s string) uint16 {
	var crc uint16
	for i := range len(s) {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

// Session returns the fields that can hold a session's record.
func Session(id caveat.SessionID) (first, short, long string) {
	first = string(id[:])
	return first, strconv.Itoa(int(id[0])%126 + 2), first + "\x01"
}

// Device returns the field of a device's record.
func Device(device revocation.DeviceTag) string { return "d" + string(device[:]) }

// ParseDevice decodes a field that Device returned.
func ParseDevice(field string) (tag revocation.DeviceTag, ok bool) {
	if len(field) != 1+len(tag) || field[0] != 'd' {
		return tag, false
	}
	copy(tag[:], field[1:])
	return tag, true
}

// Join returns the record in its pieces. A missing piece is nil.
func Join(first, short, long any) ([]byte, record.Expiry, error) {
	head, ok := first.(string)
	if !ok {
		if long != nil {
			return nil, 0, record.ErrDamaged
		}
		return nil, 0, nil
	}
	if len(head) <= HeaderSize {
		return nil, 0, record.ErrDamaged
	}
	var rest string
	switch head[record.ExpirySize] {
	case 0:
		ok = true
	case 1:
		rest, ok = short.(string)
	case 2:
		rest, ok = long.(string)
	default:
		ok = false
	}
	if !ok {
		return nil, 0, record.ErrDamaged
	}
	out := make([]byte, 0, len(head)-HeaderSize+len(rest))
	out = append(append(out, head[HeaderSize:]...), rest...)
	return out, record.Expiry(binary.BigEndian.Uint32([]byte(head[:record.ExpirySize]))), nil
}

// Cipher returns the cipher that seals the revocations of a process.
func (l *Layout) Cipher(process string) (cipher.AEAD, error) {
	key := l.mac('p', process, "")
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
