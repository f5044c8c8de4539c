package discharger

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/caveat"
)

// Ended is what an event says: it is about one session, about all of a user's,
// or about all of the homeserver's.
type Ended struct {
	Session caveat.SessionID // this session; zero: one of the two below
	User    string           // the sessions of this user; with Session: whose it was, "" if nobody said
	Device  string           // with Session: the device it was on, "" if nobody said or it had none
	All     bool             // the sessions of the homeserver

	Except caveat.SessionID // of the user's; zero: none

	At     time.Time
	Reason string // why: logout, reuse, policy, limit, revoked, again, or a word that came later
}

// The stored form of an event: what homeservers read, in one line,
//
//	{"v":1,"session":"…","at":…,"until":…,"reason":"logout"}
//
// and with one session, where the homeserver is among those in [Config.Named],
// a second one. Processes from before there was one pass both on, and readers
// of server-sent events leave out a line that begins like this:
//
//	{"user":"@alice:example.org","device":"PHONE"}
type (
	storedEvent struct {
		V       int               `json:"v"`
		Session *caveat.SessionID `json:"session"`
		User    string            `json:"user"`
		Except  *caveat.SessionID `json:"except"`
		All     bool              `json:"all"`
		Before  int64             `json:"before"`
		At      int64             `json:"at"`
		Until   int64             `json:"until"`
		Reason  string            `json:"reason"`
	}
	storedOwner struct {
		User   string `json:"user"`
		Device string `json:"device"`
	}
)

// appendOwner appends the second line. A name that JSON cannot hold is left
// out: what ends a session must not fail for the sake of those who are told.
func appendOwner(b []byte, e *revoked) []byte {
	if e.owner == "" || e.session == (caveat.SessionID{}) {
		return b
	}
	line, err := jsontext.AppendQuote([]byte("\n"+`{"user":`), e.owner)
	if err != nil {
		return b
	}
	if e.device != "" {
		with, err := jsontext.AppendQuote(append(bytes.Clone(line), `,"device":`...), e.device)
		if err == nil {
			line = with
		}
	}
	return append(append(b, line...), '}')
}

var errEvent = errors.New("it is not about one of session, user and all")

// ReadEvent reads the data of an event in a feed. What it does not understand
// is an error, and Ended is zero then.
func ReadEvent(data []byte) (Ended, error) {
	line, second, named := bytes.Cut(data, []byte{'\n'})
	var e storedEvent
	if err := jsonv2.Unmarshal(line, &e, jsonv2.RejectUnknownMembers(true)); err != nil {
		return Ended{}, errors.New("read event: it is not the JSON it should be")
	}
	out := Ended{User: e.User, All: e.All, At: time.UnixMilli(e.At).UTC(), Reason: e.Reason}
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
	case session && e.User != "", session && e.All, e.User != "" && e.All, !session && e.User == "" && !e.All,
		e.Session != nil && !session, e.Except != nil && e.User == "":
		return Ended{}, fmt.Errorf("read event: %w", errEvent)
	case e.At <= 0, e.Reason == "":
		return Ended{}, errors.New("read event: it does not say when, or why")
	}
	if named {
		var o storedOwner
		if err := jsonv2.Unmarshal(second, &o, jsonv2.RejectUnknownMembers(true)); err != nil || !session || o.User == "" {
			return Ended{}, errors.New("read event: what it says beside is not what it should be")
		}
		out.User, out.Device = o.User, o.Device
	}
	return out, nil
}
