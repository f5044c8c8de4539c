package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// What a store takes. Both limits are far above what the service writes; they
// are there so that a mistake is an error and not a full disk.
const (
	maxName   = 4 << 10  // of a homeserver or a user, bytes
	maxRecord = 64 << 10 // bytes
	maxEvent  = 16 << 10 // bytes
)

// defaultMaxEvents bounds a homeserver's feed: an hour of 270 revocations a
// second, in Redis about 150 MB.
const defaultMaxEvents = 1_000_000

func checkHomeserver(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("name of homeserver has %d bytes, more than %d", len(name), maxName)
	}
	return nil
}

func checkUser(u discharger.UserKey) error {
	if len(u.User) > maxName {
		return fmt.Errorf("name of user has %d bytes, more than %d", len(u.User), maxName)
	}
	return checkHomeserver(u.Homeserver)
}

// checkRecord refuses what is neither a record nor nil.
func checkRecord(b []byte) error {
	switch {
	case b != nil && len(b) == 0:
		return errors.New("record is empty")
	case len(b) > maxRecord:
		return fmt.Errorf("record has %d bytes, more than %d", len(b), maxRecord)
	}
	return nil
}

// checkWrite refuses what no store could carry out: it is a mistake of the
// caller, and nothing has been changed.
func checkWrite(w discharger.Write) error {
	if err := checkUser(w.User); err != nil {
		return err
	}
	if len(w.Changes) == 0 {
		return errors.New("write changes nothing")
	}
	for i, c := range w.Changes {
		if err := errors.Join(checkRecord(c.Old), checkRecord(c.New)); err != nil {
			return fmt.Errorf("change %d: %w", i, err)
		}
		if c.Session != (caveat.SessionID{}) && c.Device != (revocation.DeviceTag{}) {
			return fmt.Errorf("change %d: session and device", i)
		}
		for _, earlier := range w.Changes[:i] {
			if earlier.Session == c.Session && earlier.Device == c.Device {
				return fmt.Errorf("change %d: a record is changed twice", i)
			}
		}
	}
	return checkEvents(w.Events)
}

func checkHomeserverSwap(homeserver string, old, new []byte, events []discharger.FeedEvent) error {
	return errors.Join(checkHomeserver(homeserver), checkRecord(old), checkRecord(new), checkEvents(events))
}

func checkPublish(homeserver string, events []discharger.FeedEvent) error {
	if len(events) == 0 {
		return errors.New("nothing to publish")
	}
	return errors.Join(checkHomeserver(homeserver), checkEvents(events))
}

func checkEvents(events []discharger.FeedEvent) error {
	for i, e := range events {
		switch {
		case len(e.Data) == 0 || len(e.Data) > maxEvent:
			return fmt.Errorf("event %d has %d bytes, not 1 to %d", i, len(e.Data), maxEvent)
		case e.Until.UnixMilli() <= 0:
			return fmt.Errorf("event %d is over before it begins", i)
		}
	}
	return nil
}

// agrees reports whether a record allows a change: it is what the change says
// it was, or what the change would make it.
func agrees(current, old, new []byte) bool {
	return bytes.Equal(current, old) || bytes.Equal(current, new)
}

// expiry is the Unix second from which on a record is gone, 0 if it stays. It
// is stored in front of the record, big-endian.
type expiry uint32

const expirySize = 4

// expiryOf rounds up: a record is never forgotten early. What lies after 2106
// is as good as never, and what lies before 1970 is over.
func expiryOf(t time.Time) expiry {
	if t.IsZero() {
		return 0
	}
	sec := t.Unix()
	if t.Nanosecond() > 0 {
		sec++
	}
	switch {
	case sec < 1:
		return 1
	case sec > math.MaxUint32:
		return 0
	}
	return expiry(sec)
}

func (e expiry) passed(now time.Time) bool { return e != 0 && now.Unix() >= int64(e) }

func (e expiry) append(b []byte) []byte { return binary.BigEndian.AppendUint32(b, uint32(e)) }
