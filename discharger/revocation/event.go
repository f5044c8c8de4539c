package revocation

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/discharger/discharger/discharger/caveat"
)

// Ended is the content of an event: one session, all of a user's, those of a
// user's device, or all of the homeserver's.
type Ended struct {
	Session caveat.SessionID // this session; zero: one of the others
	User    string           // the sessions of this user; with Session: its user, "" if it is not known
	Device  string           // with Session: its device, "" if it is not known or there is none; otherwise the sessions of this device
	All     bool             // the sessions of the homeserver

	Except  caveat.SessionID // of the user's or the device's; zero: none
	Devices bool             // of the user's: only those that have a device

	Soft   bool // the client keeps its encryption keys
	At     time.Time
	Reason string // a [Cause], again, or a word of a later version
}

// The stored form of an event is one line, which homeservers read:
//
//	{"v":1,"session":"…","user":"…","device":"…","kind":"soft","at":…,"until":…,"reason":"replaced"}
//
// Earlier versions wrote no kind, and user and device of a session, if at all,
// in a second line of their own, {"user":"…","device":"…"}.
type (
	storedEvent struct {
		V       int               `json:"v"`
		Session *caveat.SessionID `json:"session"`
		User    string            `json:"user"`
		Device  string            `json:"device"`
		Except  *caveat.SessionID `json:"except"`
		Devices bool              `json:"devices"`
		All     bool              `json:"all"`
		Before  int64             `json:"before"`
		Kind    string            `json:"kind"`
		At      int64             `json:"at"`
		Until   int64             `json:"until"`
		Reason  string            `json:"reason"`
	}
	storedOwner struct {
		User   string `json:"user"`
		Device string `json:"device"`
	}
)

var errEvent = errors.New("want exactly one of session, user, all")

// ReadEvent reads the data of an event in a feed. Members that are not known
// are ignored. On error, Ended is zero.
func ReadEvent(data []byte) (Ended, error) {
	line, second, named := bytes.Cut(data, []byte{'\n'})
	var e storedEvent
	if err := jsonv2.Unmarshal(line, &e); err != nil {
		return Ended{}, errors.New("read event: malformed JSON")
	}
	out := Ended{User: e.User, Device: e.Device, All: e.All, Devices: e.Devices, Soft: e.Kind == "soft", At: time.UnixMilli(e.At).UTC(), Reason: e.Reason}
	if e.Session != nil {
		out.Session = *e.Session
	}
	if e.Except != nil {
		out.Except = *e.Except
	}
	session := out.Session != caveat.SessionID{}
	switch {
	case e.V != 1:
		return Ended{}, fmt.Errorf("read event: version %d is not known", e.V)
	case session && e.All, e.User != "" && e.All, !session && e.User == "" && !e.All,
		e.Session != nil && !session, e.Except != nil && (session || e.User == ""), e.Device != "" && !session && e.User == "":
		return Ended{}, fmt.Errorf("read event: %w", errEvent)
	case e.At <= 0, e.Reason == "":
		return Ended{}, errors.New("read event: time or reason is missing")
	}
	if named {
		var o storedOwner
		if err := jsonv2.Unmarshal(second, &o); err != nil || !session || o.User == "" {
			return Ended{}, errors.New("read event: second line is malformed")
		}
		out.User, out.Device = o.User, o.Device
	}
	return out, nil
}
