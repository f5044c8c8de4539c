package revocation

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/caveat"
)

// Event is a revocation in the feed of a homeserver: of one session, of a user's
// device, of a user, or of the homeserver. It is one line of JSON:
//
//	{"v":1,"session":"…","user":"…","device":"…","kind":"soft","at":…,"until":…,"reason":"replaced"}
//	{"v":1,"user":"…","device":"…","before":…,"kind":"hard","at":…,"until":…,"reason":"revoked"}
//	{"v":1,"user":"…","except":"…","before":…,"kind":"hard","at":…,"until":…,"reason":"revoked"}
//	{"v":1,"all":true,"before":…,"kind":"hard","at":…,"until":…,"reason":"revoked"}
//
// Times are Unix milliseconds. Readers ignore members that they do not know.
// Earlier versions wrote no kind, and user and device of a session, if at all,
// in a second line of their own, {"user":"…","device":"…"}.
type Event struct {
	Session caveat.SessionID // one session; zero: see the next three
	User    string           // all sessions of this user; with Session: its user, empty: unknown
	Device  string           // only those on this device of User; with Session: its device, empty: none or unknown
	All     bool             // all sessions of the homeserver

	Except  caveat.SessionID // of User or Device: spared; zero: none
	Devices bool             // of User: sessions without a device are spared
	Before  time.Time        // without Session: only sessions minted before this are revoked

	// Soft: the clients log in again and keep their encryption keys. It is false if
	// the event has no kind, and true for an unknown kind.
	Soft bool

	At    time.Time // of the revocation
	Until time.Time // when no discharge of the sessions is valid, and the event can be dropped

	Reason Cause // or a word of a later version
}

const (
	eventVersion = 1
	kindHard     = "hard"
	kindSoft     = "soft"
	maxWord      = 64 // bytes of reason and kind
)

// Event returns the event of a revocation. The second result is false if the
// revocation has none.
func (r *Revocation) Event() (Event, bool) {
	if r.Until == 0 {
		return Event{}, false
	}
	e := Event{User: r.User, Device: r.Device, Soft: r.Soft, At: utc(r.At), Until: utc(r.Until), Reason: r.Cause}
	switch r.Kind {
	case KindSession:
		e.Session = r.Session
		if r.User == "" || len(r.User) > caveat.MaxUser {
			e.User = ""
		}
	case KindHomeserver:
		e.All, e.Before = true, utc(r.At+1)
	default:
		e.Except, e.Devices, e.Before = r.Except, r.Devices, utc(r.At+1)
	}
	if r.Again {
		e.Reason = CauseAgain
	}
	return e, true
}

// Lines returns the lines of the revocations that have an event.
func Lines(all []Revocation) (out []Line, err error) {
	for i := range all {
		e, ok := all[i].Event()
		if !ok {
			continue
		}
		data, err := e.appendJSON(make([]byte, 0, 240))
		if err != nil {
			return nil, err
		}
		out = append(out, Line{Data: data, Until: all[i].Until})
	}
	return out, nil
}

// Line is an event in its stored form.
type Line struct {
	Data  []byte // JSON
	Until int64  // Unix ms
}

// LineTime returns the time of an event from its JSON without parsing the rest.
// Inside a name, the quotes of the member would be escaped.
func LineTime(line []byte) (at time.Time, ok bool) {
	_, rest, ok := bytes.Cut(line, []byte(`,"at":`))
	digits, _, more := bytes.Cut(rest, []byte{','})
	ms, err := strconv.ParseInt(string(digits), 10, 64)
	return utc(ms), ok && more && err == nil
}

// MarshalJSON returns the JSON of a valid event.
func (e Event) MarshalJSON() ([]byte, error) { return e.appendJSON(nil) }

// appendJSON appends the JSON of an event. It refuses an event that ParseEvent would
// refuse, since that would stop the feed's readers. In a session's event it omits
// names that JSON cannot represent, since the session's id is enough.
func (e *Event) appendJSON(b []byte) ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("write event: %w", err)
	}
	b = append(b, `{"v":1`...)
	one := e.Session != caveat.SessionID{}
	switch {
	case one:
		b = append(append(b, `,"session":"`...), e.Session.String()...)
		b = append(b, '"')
	case e.All:
		b = append(b, `,"all":true`...)
	}
	for _, m := range [...]struct{ name, value string }{{`,"user":`, e.User}, {`,"device":`, e.Device}} {
		if m.value == "" {
			continue
		}
		before := len(b)
		with, err := jsontext.AppendQuote(append(b, m.name...), m.value)
		switch {
		case err == nil:
			b = with
		case one:
			b = b[:before]
		default:
			return nil, fmt.Errorf("write event: %w", err)
		}
	}
	if e.Except != (caveat.SessionID{}) {
		b = append(append(b, `,"except":"`...), e.Except.String()...)
		b = append(b, '"')
	}
	if e.Devices {
		b = append(b, `,"devices":true`...)
	}
	if !one {
		b = strconv.AppendInt(append(b, `,"before":`...), e.Before.UnixMilli(), 10)
	}
	kind := kindHard
	if e.Soft {
		kind = kindSoft
	}
	b = append(append(append(b, `,"kind":"`...), kind...), '"')
	b = strconv.AppendInt(append(b, `,"at":`...), e.At.UnixMilli(), 10)
	b = strconv.AppendInt(append(b, `,"until":`...), e.Until.UnixMilli(), 10)
	b, err := jsontext.AppendQuote(append(b, `,"reason":`...), string(e.Reason))
	if err != nil {
		return nil, fmt.Errorf("write event: %w", err)
	}
	return append(b, '}'), nil
}

type (
	eventJSON struct {
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
		Reason  Cause             `json:"reason"`
	}
	ownerJSON struct {
		User   string `json:"user"`
		Device string `json:"device"`
	}
)

// ParseEvent returns the event of a line, also with the second line of earlier
// versions. It ignores unknown members. On error, the event is zero.
func ParseEvent(data []byte) (Event, error) {
	line, second, named := bytes.Cut(data, []byte{'\n'})
	var w eventJSON
	if err := jsonv2.Unmarshal(line, &w); err != nil {
		return Event{}, errors.New("read event: malformed JSON")
	}
	e, err := w.event()
	if err != nil {
		return Event{}, fmt.Errorf("read event: %w", err)
	}
	if named {
		var o ownerJSON
		if err := jsonv2.Unmarshal(second, &o); err != nil || w.Session == nil || o.User == "" {
			return Event{}, errors.New("read event: second line is malformed")
		}
		e.User, e.Device = o.User, o.Device
	}
	return e, nil
}

// UnmarshalJSON reads an event without a second line. On error, e is zero.
func (e *Event) UnmarshalJSON(data []byte) (err error) {
	*e, err = ParseEvent(bytes.ReplaceAll(data, []byte{'\n'}, []byte{' '}))
	return err
}

func (w *eventJSON) event() (Event, error) {
	e := Event{
		User: w.User, Device: w.Device, Devices: w.Devices, All: w.All, Soft: w.Kind != "" && w.Kind != kindHard,
		At: utc(w.At), Until: utc(w.Until), Reason: w.Reason,
	}
	if w.Session != nil {
		e.Session = *w.Session
	}
	if w.Except != nil {
		e.Except = *w.Except
	}
	if w.Before != 0 {
		e.Before = utc(w.Before)
	}
	switch zero := (caveat.SessionID{}); {
	case w.V != eventVersion:
		return Event{}, fmt.Errorf("version %d is unknown", w.V)
	case w.Session != nil && e.Session == zero, w.Except != nil && e.Except == zero:
		return Event{}, errors.New("session is all zeros")
	case len(w.Kind) > maxWord:
		return Event{}, errors.New("kind is too long")
	}
	if err := e.check(); err != nil {
		return Event{}, err
	}
	return e, nil
}

// check returns an error for an event without a subject or with contradictory fields.
func (e *Event) check() error {
	session, user := e.Session != caveat.SessionID{}, e.User != ""
	switch {
	case e.All && (session || user || e.Device != ""), !session && !user && !e.All:
		return errors.New("want exactly one of session, user, all")
	case e.Except != caveat.SessionID{} && (session || !user):
		return errors.New("except without user")
	case e.Devices && (session || !user || e.Device != ""):
		return errors.New("devices without user")
	case session != e.Before.IsZero():
		return errors.New("want before exactly without session")
	case !plausible(e.At), !plausible(e.Until), !session && !plausible(e.Before):
		return errors.New("time is out of range")
	case e.Reason == "", len(e.Reason) > maxWord:
		return errors.New("reason is missing or too long")
	case len(e.User) > caveat.MaxUser, caveat.CheckDevice(e.Device) != nil && !session:
		return errors.New("user or device is too long")
	}
	return nil
}

// plausible reports whether a time is after 1970 and before the year 5000.
func plausible(t time.Time) bool {
	ms := t.UnixMilli()
	return ms > 0 && ms < 95_617_584_000_000
}

func utc(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// Lifetime bounds the lifetime of discharges, and so that of events.
type Lifetime struct {
	MaxTTL time.Duration // of a discharge; 0: an hour
	Skew   time.Duration // between the clocks of service and homeservers; 0: a minute
}

// requestSlack is how much longer than discharges an event is kept, for requests
// that began before the revocation.
const requestSlack = time.Minute

// Until returns when no discharge issued before at is valid any more. Both are Unix ms.
func (l Lifetime) Until(at int64) int64 {
	return at + (cmp.Or(l.MaxTTL, time.Hour) + cmp.Or(l.Skew, time.Minute) + requestSlack).Milliseconds()
}
