package wire

import (
	"errors"
	"fmt"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/caveat"
)

// RevokeOptions is how sessions are revoked. The zero value revokes hard, now, and
// without exception.
type RevokeOptions struct {
	// Soft has the clients log in again and keep their encryption keys.
	Soft bool
	// Age is how long ago the sessions ended for the caller, to the
	// millisecond: those that were activated since are left alone.
	Age time.Duration
	// Except is a session of the user or the device that is left alone; zero:
	// none.
	Except caveat.SessionID
	// ExceptDevice is a device of the user whose sessions are left alone; "":
	// none. It does not go with Except.
	ExceptDevice string
	// Devices leaves sessions of the user alone that have no device.
	Devices bool
	// Epoch, of one session, is that of the discharge by which its client
	// proved itself. If that is neither the newest nor the one before, the
	// order is refused with [ReasonTokenSuperseded]. 0: it is not looked at.
	Epoch uint64
}

// Revoked is the body of an answer to a revocation.
type Revoked struct {
	Ended  int  `json:"ended"`  // sessions that it ended now
	Known  bool `json:"known"`  // the session, the device or the user is live or remembered
	Marked bool `json:"marked"` // sessions that were minted by now and have no record are ended too
}

// MaxRevoke is the greatest number of entries in a RevokeRequest.
const MaxRevoke = 100

// RevokeRequest is the JSON body of PathRevoke. Each entry is one revocation,
// and is answered for itself; they are made in order.
type RevokeRequest struct {
	Revoke []RevokeEntry `json:"revoke"` // up to MaxRevoke
}

// RevokeResponse is the body of the answer, with one result for each entry.
type RevokeResponse struct {
	Results []RevokeResult `json:"results"`
}

// RevokeEntry is one revocation: of a session, of the sessions of a device, or,
// with neither, of all sessions of a user.
//
//	{"user":"…","session":"…"}
//	{"user":"…","device":"…","kind":"soft","age":60000,"except":"…"}
//	{"user":"…","except_device":"…","devices":true}
//
// The members beside user, session and device are those of an [RevokeOptions], as the
// parameters of the other paths.
type RevokeEntry struct {
	User    string
	Session caveat.SessionID // zero: none
	Device  string           // "": none
	RevokeOptions
}

// RevokeResult is the result of one entry: Error, or the rest.
type RevokeResult struct {
	Revoked
	Error *ErrorResponse // what the request would be answered with if it were for this entry alone
}

// wireEntry is a RevokeEntry in JSON. A member that is there names something,
// so an empty one is not the same as none.
type wireEntry struct {
	User         string            `json:"user"`
	Session      *caveat.SessionID `json:"session,omitempty"`
	Device       *string           `json:"device,omitempty"`
	Kind         string            `json:"kind,omitempty"`
	Age          int64             `json:"age,omitzero"`
	Except       *caveat.SessionID `json:"except,omitempty"`
	ExceptDevice *string           `json:"except_device,omitempty"`
	Devices      bool              `json:"devices,omitzero"`
	Epoch        uint64            `json:"epoch,omitzero"`
}

// MarshalJSON writes the form above.
func (e RevokeEntry) MarshalJSON() ([]byte, error) {
	w := wireEntry{User: e.User, Age: e.Age.Milliseconds(), Devices: e.Devices, Epoch: e.Epoch}
	if e.Session != (caveat.SessionID{}) {
		w.Session = &e.Session
	}
	if e.Device != "" {
		w.Device = &e.Device
	}
	if e.Soft {
		w.Kind = KindSoft
	}
	if e.Except != (caveat.SessionID{}) {
		w.Except = &e.Except
	}
	if e.ExceptDevice != "" {
		w.ExceptDevice = &e.ExceptDevice
	}
	return jsonv2.Marshal(w)
}

// UnmarshalJSON reads the form above. Unknown and duplicate members are errors,
// and so are members that do not go together; the error says which. On error, e
// is zero.
func (e *RevokeEntry) UnmarshalJSON(data []byte) error {
	*e = RevokeEntry{}
	var w wireEntry
	if err := jsonv2.Unmarshal(data, &w, jsonv2.RejectUnknownMembers(true)); err != nil {
		return decodeError(err)
	}
	var members map[string]jsontext.Value
	if err := jsonv2.Unmarshal(data, &members); err != nil {
		return decodeError(err)
	}
	for name, value := range members {
		if k := value.Kind(); k == 'n' || name == "kind" && string(value) == `""` {
			return fmt.Errorf("member %q is null or empty", name)
		}
	}
	switch {
	case w.Session != nil && *w.Session == caveat.SessionID{}, w.Except != nil && *w.Except == caveat.SessionID{}:
		return errors.New("session or except is all zeros")
	case w.Device != nil && *w.Device == "", w.ExceptDevice != nil && *w.ExceptDevice == "":
		return errors.New("device or except_device is empty")
	case w.Kind != "" && w.Kind != KindHard && w.Kind != KindSoft:
		return errors.New("kind is neither hard nor soft")
	case w.Age < 0 || w.Age > MaxAge.Milliseconds():
		return errors.New("age is not a number of milliseconds, at most a year")
	}
	out := RevokeEntry{User: w.User, RevokeOptions: RevokeOptions{
		Soft: w.Kind == KindSoft, Age: time.Duration(w.Age) * time.Millisecond, Devices: w.Devices, Epoch: w.Epoch,
	}}
	if w.Session != nil {
		out.Session = *w.Session
	}
	if w.Device != nil {
		out.Device = *w.Device
	}
	if w.Except != nil {
		out.Except = *w.Except
	}
	if w.ExceptDevice != nil {
		out.ExceptDevice = *w.ExceptDevice
	}
	if err := out.Check(); err != nil {
		return err
	}
	*e = out
	return nil
}

// decodeError names the place of an error in JSON, and repeats no value.
func decodeError(err error) error {
	var semantic *jsonv2.SemanticError
	if errors.As(err, &semantic) && semantic.JSONPointer != "" {
		return fmt.Errorf("member %q is unknown or of the wrong type", string(semantic.JSONPointer))
	}
	return errors.New("malformed JSON")
}

// MaxAge is the greatest age of a revocation.
const MaxAge = 366 * 24 * time.Hour

// Check reports members that are missing or do not go together.
func (e *RevokeEntry) Check() error {
	session, device := e.Session != caveat.SessionID{}, e.Device != ""
	switch {
	case e.User == "" || len(e.User) > caveat.MaxUser:
		return errors.New("user is empty or longer than 255 bytes")
	case caveat.CheckDevice(e.Device) != nil || caveat.CheckDevice(e.ExceptDevice) != nil:
		return errors.New("device or except_device is longer than 512 characters, or not UTF-8")
	case session && device:
		return errors.New("want at most one of session, device")
	case session:
		return e.RevokeOptions.checkSession()
	case device && (e.ExceptDevice != "" || e.Devices):
		return errors.New("except_device and devices do not go with a device")
	case e.Epoch > 0:
		return errors.New("epoch goes with one session only")
	case e.Except != caveat.SessionID{} && e.ExceptDevice != "":
		return errors.New("want at most one of except, except_device")
	}
	return nil
}

func (o *RevokeOptions) checkSession() error {
	if o.Except != (caveat.SessionID{}) || o.ExceptDevice != "" || o.Devices {
		return errors.New("except, except_device and devices do not go with one session")
	}
	return nil
}

// CheckAll reports members that do not go with the revocation of all of a
// homeserver's sessions.
func (o *RevokeOptions) CheckAll() error {
	if o.Except != (caveat.SessionID{}) || o.ExceptDevice != "" || o.Devices || o.Epoch > 0 || o.Age > 0 {
		return errors.New("age, except, except_device, devices and epoch do not go with all sessions of the homeserver")
	}
	return nil
}

// wireResult is a RevokeResult in JSON.
type wireResult struct {
	*Revoked
	Error *ErrorResponse `json:"error,omitempty"`
}

// MarshalJSON writes {"ended","known","marked"}, or {"error"}.
func (r RevokeResult) MarshalJSON() ([]byte, error) {
	if r.Error != nil {
		return jsonv2.Marshal(wireResult{Error: r.Error})
	}
	return jsonv2.Marshal(r.Revoked)
}

// UnmarshalJSON reads the same.
func (r *RevokeResult) UnmarshalJSON(data []byte) error {
	*r = RevokeResult{}
	w := wireResult{Revoked: new(Revoked)}
	if err := jsonv2.Unmarshal(data, &w); err != nil {
		return err
	}
	r.Revoked, r.Error = *w.Revoked, w.Error
	return nil
}
