package redis

import (
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

// What is in Redis. bb is one of 256 short names, tag the HMAC of a name under
// RedisConfig.TagKey, 128 bits in base64url.
//
//	ds{bb}tag             hash    a user's own record and sessions
//	ds{bb}homeserver:tag  string  a homeserver's record
//	ds{bb}feed:tag        stream  its feed: until when an event is kept (Unix ms), and the event
//	ds{bb}lost:tag        string  until when it matters that some went before their time
//	ds{bb}store:tag       string  the store's identity, once for each bb
//	ds{bb}since:tag       string  when the data of bb began, and when its loss was accepted
//	ds{bb}beat:tag        stream  when processes were writing to the store, for one bb of each node
//	ds{bb}new:tag         hash    how far the identity has been written, for the first bb
//	ds{bb}peers:tag       stream  what processes with a journal have revoked, sealed, for the first bb
//
// A user's hash and the identity that tells whether it was lost have the same
// hash tag: they are on one node of a cluster and get lost together. The names
// bb are chosen so that the cluster's 16384 slots are used evenly.
//
// The fields of a user's hash:
//
//	0            the user's own record       1  its second piece
//	16 bytes     a session, by its id
//	2 to 127     second piece of a session; the number follows from the id
//	16 bytes 01  second piece of a session whose number another one uses
//	d 8 bytes    a device, by its tag; its record is never longer than one piece
//
// Redis keeps a hash compact while no field or value is longer than 64 bytes.
// A record that would be longer is therefore cut in two. The first piece is
//
//	expiry(4) place(1) record
//
// where place says whether the rest of the record is nowhere (0), under the
// number (1) or under the long name (2). Small numbers as fields take no more
// than two bytes. Numbers and long names differ in length from ids, so no
// field can be taken for one of another kind.
const (
	headerSize = record.ExpirySize + 1
	userField  = "0"
	userSecond = "1"
	tagKeyLen  = 32
	buckets    = 256
	slots      = 16384
)

type layout struct {
	names   [buckets]string
	storeID [buckets]string // keys of the identity
	// Keys beside the identity: of losses, and of heartbeats.
	sinceKey, beatKey [buckets]string
	newID             string    // key of its making
	peers             string    // key of what processes tell each other
	macs              sync.Pool // of hash.Hash
}

func newLayout(key secret.Bytes) *layout {
	l := &layout{names: bucketNames()}
	l.macs.New = func() any { return hmac.New(sha256.New, key) }
	_, tag := l.tag('s', "", "")
	for i, name := range l.names {
		l.storeID[i] = "ds{" + name + "}store:" + tag
		l.sinceKey[i] = "ds{" + name + "}since:" + tag
		l.beatKey[i] = "ds{" + name + "}beat:" + tag
	}
	l.newID = "ds{" + l.names[0] + "}new:" + tag
	l.peers = "ds{" + l.names[0] + "}peers:" + tag
	return l
}

// user returns the key of a user's hash and of the identity beside it.
func (l *layout) user(homeserver, user string) (key, storeID string) {
	key, bucket := l.userBucket(homeserver, user)
	return key, l.storeID[bucket]
}

// userBucket returns the key of a user's hash and the number of its hash tag.
func (l *layout) userBucket(homeserver, user string) (key string, bucket int) {
	bucket, tag := l.tag('u', homeserver, user)
	return "ds{" + l.names[bucket] + "}" + tag, bucket
}

// homeserver returns the key of a homeserver's record and of the identity
// beside it.
func (l *layout) homeserver(name string) (key, storeID string) {
	key, bucket := l.homeserverBucket(name)
	return key, l.storeID[bucket]
}

// homeserverBucket returns the key of a homeserver's record and the number of
// its hash tag.
func (l *layout) homeserverBucket(name string) (key string, bucket int) {
	bucket, tag := l.tag('h', name, "")
	return "ds{" + l.names[bucket] + "}homeserver:" + tag, bucket
}

// feed returns the keys of a homeserver's feed, of its losses, and of the
// identity beside them.
func (l *layout) feed(homeserver string) (key, lost, storeID string) {
	bucket, tag := l.tag('h', homeserver, "")
	return "ds{" + l.names[bucket] + "}feed:" + tag, "ds{" + l.names[bucket] + "}lost:" + tag, l.storeID[bucket]
}

func (l *layout) tag(kind byte, a, b string) (bucket int, tag string) {
	sum := l.mac(kind, a, b)
	return int(sum[16]), base64.RawURLEncoding.EncodeToString(sum[:16])
}

func (l *layout) mac(kind byte, a, b string) [sha256.Size]byte {
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

// bucketNames finds for each 256th of a cluster's slots the first name, in
// alphabetical order, that belongs there.
func bucketNames() (names [buckets]string) {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	for i := range letters {
		for j := range letters {
			name := string([]byte{letters[i], letters[j]})
			if at := int(crc16(name)) % slots / (slots / buckets); names[at] == "" {
				names[at] = name
			}
		}
	}
	return names
}

// crc16 is what a cluster derives a slot from: CRC-16/XMODEM.
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

// sessionFields returns the fields that a session's record may be in.
func sessionFields(id caveat.SessionID) (first, short, long string) {
	first = string(id[:])
	return first, strconv.Itoa(int(id[0])%126 + 2), first + "\x01"
}

// deviceField returns the field of a device's record.
func deviceField(device revocation.DeviceTag) string { return "d" + string(device[:]) }

// deviceOf reads the name of a field that deviceField returned.
func deviceOf(field string) (tag revocation.DeviceTag, ok bool) {
	if len(field) != 1+len(tag) || field[0] != 'd' {
		return tag, false
	}
	copy(tag[:], field[1:])
	return tag, true
}

// join puts a record together again. Pieces that are not there are nil.
func join(first, short, long any) ([]byte, record.Expiry, error) {
	head, ok := first.(string)
	if !ok {
		if long != nil {
			return nil, 0, record.ErrDamaged
		}
		return nil, 0, nil
	}
	if len(head) <= headerSize {
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
	out := make([]byte, 0, len(head)-headerSize+len(rest))
	out = append(append(out, head[headerSize:]...), rest...)
	return out, record.Expiry(binary.BigEndian.Uint32([]byte(head[:record.ExpirySize]))), nil
}
