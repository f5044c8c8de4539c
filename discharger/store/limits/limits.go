// Package limits checks the arguments of stores.
package limits

import (
	"errors"
	"fmt"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

// FeedPage is the number of entries that one read returns at most.
const FeedPage = 512

// Limits of arguments. They are far above the needs of the service, and turn a
// mistake into an error before it fills a disk.
const (
	MaxName   = 4 << 10  // of a homeserver or a user, bytes
	MaxRecord = 64 << 10 // bytes
)

// DefaultMaxEvents bounds a homeserver's feed: an hour of 270 revocations a
// second, in Redis about 150 MB.
const DefaultMaxEvents = 1_000_000

// CheckHomeserver checks the name of a homeserver.
func CheckHomeserver(name string) error {
	if len(name) > MaxName {
		return fmt.Errorf("name of homeserver has %d bytes, more than %d", len(name), MaxName)
	}
	return nil
}

// CheckUser checks the names in a key.
func CheckUser(u store.UserKey) error {
	if len(u.User) > MaxName {
		return fmt.Errorf("name of user has %d bytes, more than %d", len(u.User), MaxName)
	}
	return CheckHomeserver(u.Homeserver)
}

// checkRecord returns an error unless b is nil or a record.
func checkRecord(b []byte) error {
	switch {
	case b != nil && len(b) == 0:
		return errors.New("record is empty")
	case len(b) > MaxRecord:
		return fmt.Errorf("record has %d bytes, more than %d", len(b), MaxRecord)
	}
	return nil
}

// CheckWrite returns an error for a write that no store accepts.
func CheckWrite(w store.Write) error {
	if err := CheckUser(w.User); err != nil {
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
	return nil
}

// CheckHomeserverSwap checks the arguments of SwapHomeserver.
func CheckHomeserverSwap(homeserver string, old, new []byte) error {
	return errors.Join(CheckHomeserver(homeserver), checkRecord(old), checkRecord(new))
}

// CheckPublish checks the arguments of Publish.
func CheckPublish(homeserver string, events []revocation.Line) error {
	if len(events) == 0 {
		return errors.New("nothing to publish")
	}
	return CheckHomeserver(homeserver)
}
