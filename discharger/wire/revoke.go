package wire

import (
	"errors"
	"fmt"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/caveat"
)

// RevokeOptions are the options of a revocation. The zero value revokes hard, now, and
// without exception.
type RevokeOptions struct {
	Soft         bool             // clients keep their encryption keys when they log in again
	Age          time.Duration    // since the end for the caller, in ms; later activations are left alone
	Except       caveat.SessionID // session of the user or device that is left alone; zero: none
	ExceptDevice string           // device of the user that is left alone; "": none; not with Except
	Devices      bool             // sessions of the user without a device are left alone
	// Epoch, of one session, is that of the discharge by which its client proved
	// itself. The revocation is refused with [ReasonTokenSuperseded] if it is neither
	// the newest nor the one before. 0: not checked.
	Epoch uint64
}

// Revoked is the answer to a revocation.
type Revoked struct {
	Ended  int  `json:"ended"`  // sessions that it ended now
	Known  bool `json:"known"`  // the session, device or user is live or has a tombstone
	Marked bool `json:"marked"` // sessions minted before now without a record are revoked too
}

// MaxRevoke is the greatest number of entries in a RevokeRequest.
const MaxRevoke = 100

// RevokeRequest is the JSON body of PathRevoke: revocations that are made in order,
// each by itself.
type RevokeRequest struct {
	Revoke []RevokeEntry `json:"revoke"` // up to MaxRevoke
}

// RevokeResponse is the answer to a RevokeRequest, with one result for each entry.
type RevokeResponse struct {
	Results []RevokeResult `json:"results"`
}

// RevokeEntry is one revocation: of a session, of the sessions of a device, or, with
// neither, of all sessions of a user.
//
//	{"user":"…","session":"…"}
//	{"user":"…","device":"…","kind":"soft","age":60000,"except":"…"}
//	{"user":"…","except_device":"…","devices":true}
//
// The other members are RevokeOptions, with the names of the parameters.
type RevokeEntry struct {
	User    string
	Session caveat.SessionID // zero: none
	Device  string           // "": none
	RevokeOptions
}

// RevokeResult is the result of one entry.
type RevokeResult struct {
	Revoked
	Error *ErrorResponse // answer to the entry if it were a request of its own; nil: Revoked
}

// wireEntry is the JSON of a RevokeEntry.
type wireEntry struct {
	User         string           `json:"user"`
	Session      caveat.SessionID `json:"session,omitzero"`
	Device       string           `json:"device,omitzero"`
	Kind         string           `json:"kind,omitzero"`
	Age          int64            `json:"age,omitzero"`
	Except       caveat.SessionID `json:"except,omitzero"`
	ExceptDevice string           `json:"except_device,omitzero"`
	Devices      bool             `json:"devices,omitzero"`
	Epoch        uint64           `json:"epoch,omitzero"`
}

// MarshalJSON encodes the form above.
func (e RevokeEntry) MarshalJSON() ([]byte, error) {
	w := wireEntry{
		User: e.User, Session: e.Session, Device: e.Device, Age: e.Age.Milliseconds(), Except: e.Except, ExceptDevice: e.ExceptDevice,
		Devices: e.Devices, Epoch: e.Epoch,
	}
	if e.Soft {
		w.Kind = KindSoft
	}
	return jsonv2.Marshal(w)
}

// UnmarshalJSON decodes the form above. Unknown and duplicate members are errors, and
// so are empty ones and members that exclude each other. After an error, e is zero.
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
	var noSession caveat.SessionID
	for name, value := range members {
		switch {
		case value.Kind() == 'n', string(value) == `""`:
			return fmt.Errorf("member %q is null or empty", name)
		case name == "session" && w.Session == noSession, name == "except" && w.Except == noSession:
			return fmt.Errorf("member %q is all zeros", name)
		}
	}
	switch {
	case w.Kind != "" && w.Kind != KindHard && w.Kind != KindSoft:
		return errors.New("kind is neither hard nor soft")
	case w.Age < 0 || w.Age > MaxAge.Milliseconds():
		return errors.New("age is negative or above a year")
	}
	out := RevokeEntry{User: w.User, Session: w.Session, Device: w.Device, RevokeOptions: RevokeOptions{
		Soft: w.Kind == KindSoft, Age: time.Duration(w.Age) * time.Millisecond, Except: w.Except, ExceptDevice: w.ExceptDevice,
		Devices: w.Devices, Epoch: w.Epoch,
	}}
	if err := out.Check(); err != nil {
		return err
	}
	*e = out
	return nil
}

// decodeError returns an error with the place of err in the JSON, and no value.
func decodeError(err error) error {
	var semantic *jsonv2.SemanticError
	if errors.As(err, &semantic) && semantic.JSONPointer != "" {
		return fmt.Errorf("member %q is unknown or of the wrong type", string(semantic.JSONPointer))
	}
	return errors.New("malformed JSON")
}

// MaxAge is the greatest age of a revocation.
const MaxAge = 366 * 24 * time.Hour

// Check returns an error if members are missing or exclude each other.
func (e *RevokeEntry) Check() error {
	session, device := e.Session != caveat.SessionID{}, e.Device != ""
	switch {
	case e.User == "" || len(e.User) > caveat.MaxUser:
		return errors.New("user is empty or longer than 255 bytes")
	case caveat.CheckDevice(e.Device) != nil || caveat.CheckDevice(e.ExceptDevice) != nil:
		return errors.New("device or except_device is longer than 512 characters, or not UTF-8")
	case session && device:
		return errors.New("want at most one of session, device")
	case session && (e.Except != caveat.SessionID{} || e.ExceptDevice != "" || e.Devices):
		return errors.New("except, except_device and devices do not go with one session")
	case device && (e.ExceptDevice != "" || e.Devices):
		return errors.New("except_device and devices do not go with a device")
	case !session && e.Epoch > 0:
		return errors.New("epoch goes with one session only")
	case e.Except != caveat.SessionID{} && e.ExceptDevice != "":
		return errors.New("want at most one of except, except_device")
	}
	return nil
}

// CheckAll returns an error if members exclude the revocation of all sessions of a
// homeserver.
func (o *RevokeOptions) CheckAll() error {
	if o.Except != (caveat.SessionID{}) || o.ExceptDevice != "" || o.Devices || o.Epoch > 0 || o.Age > 0 {
		return errors.New("age, except, except_device, devices and epoch do not go with all sessions of the homeserver")
	}
	return nil
}

type wireResult struct {
	*Revoked
	Error *ErrorResponse `json:"error,omitempty"`
}

// MarshalJSON encodes {"ended","known","marked"} or {"error"}.
func (r RevokeResult) MarshalJSON() ([]byte, error) {
	if r.Error != nil {
		return jsonv2.Marshal(wireResult{Error: r.Error})
	}
	return jsonv2.Marshal(r.Revoked)
}

// UnmarshalJSON decodes the same.
func (r *RevokeResult) UnmarshalJSON(data []byte) error {
	*r = RevokeResult{}
	w := wireResult{Revoked: new(Revoked)}
	if err := jsonv2.Unmarshal(data, &w); err != nil {
		return err
	}
	r.Revoked, r.Error = *w.Revoked, w.Error
	return nil
}
