package caveat

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Mode is the party that may fetch a discharge. The zero value is no mode.
type Mode uint8

// The modes.
const (
	ModeOpen   Mode = iota + 1 // every holder of the caveat
	ModeRotate                 // a holder of the caveat and the current refresh token
	ModeHeld                   // the homeserver, with its API key
)

var modeNames = [...]string{ModeOpen: "open", ModeRotate: "rotate", ModeHeld: "held"}

// ParseMode parses "open", "rotate" or "held".
func ParseMode(s string) (Mode, error) {
	if i := slices.Index(modeNames[ModeOpen:], s); i >= 0 {
		return ModeOpen + Mode(i), nil
	}
	return 0, errors.New("mode is not open, rotate or held")
}

// String returns the text that [ParseMode] parses, and "mode(n)" for a value that is
// not a mode.
func (m Mode) String() string {
	if !m.valid() {
		return "mode(" + strconv.Itoa(int(m)) + ")"
	}
	return modeNames[m]
}

func (m Mode) valid() bool { return m >= ModeOpen && m <= ModeHeld }

// Condition is the condition of a session's caveat. Beside its own record, it is all
// that the discharger has of the session.
//
//	session {"id":"AAECAwQFBgcICQoLDA0ODw","user":"@alice:example.org", …}
//
// As text it is at most 8 KiB: the word session, one space, and a JSON object
// with the members noted at the fields. The first five are required.
type Condition struct {
	Session SessionID         // "id"; not all zeros
	User    string            // "user": the homeserver's name of the user, 1 to 255 bytes
	Device  string            // "device": its name of the device, up to [MaxDevice] characters of any kind; may be empty
	Minted  int64             // "minted": when the macaroon was minted, in Unix ms
	Mode    Mode              // "mode"
	Policy  string            // "policy": 1 to 64 of a-z, 0-9, _ - . ; empty: the homeserver's own
	MaxTTL  time.Duration     // "max_ttl", in seconds: no discharge lives longer; 0: no limit
	Expires int64             // "expires": end of the session, in Unix ms; 0: never
	Labels  map[string]string // "labels", for policies: at most 16, of 1 to 64 and 0 to 256 bytes
}

// The longest names of users and devices, those of Matrix homeservers.
const (
	MaxUser   = 255 // bytes
	MaxDevice = 512 // characters, which are up to 4 bytes each
)

// Limits of a condition, in bytes unless noted.
const (
	maxCondition  = 8 << 10
	maxPolicy     = 64
	maxLabels     = 16 // entries
	maxLabelKey   = 64
	maxLabelValue = 256
	maxTTLSeconds = int64(math.MaxInt64 / time.Second)
)

// conditionWord and the space after it begin a condition.
const conditionWord = "session "

// Encode returns the condition in its canonical spelling: members in the order of the
// fields, without those that are zero, labels in the order of their keys, no white space
// beside the one space. The error names the first limit that the condition exceeds.
func (c Condition) Encode() (string, error) {
	if err := c.validate(); err != nil {
		return "", fmt.Errorf("encode condition: %w", err)
	}
	b := append(make([]byte, 0, 256), conditionWord...)
	b = appendMember(b, `{"id":`, c.Session.String())
	b = appendMember(b, `,"user":`, c.User)
	b = appendMember(b, `,"device":`, c.Device)
	b = strconv.AppendInt(append(b, `,"minted":`...), c.Minted, 10)
	b = appendMember(b, `,"mode":`, c.Mode.String())
	if c.Policy != "" {
		b = appendMember(b, `,"policy":`, c.Policy)
	}
	if c.MaxTTL != 0 {
		b = strconv.AppendInt(append(b, `,"max_ttl":`...), int64(c.MaxTTL/time.Second), 10)
	}
	if c.Expires != 0 {
		b = strconv.AppendInt(append(b, `,"expires":`...), c.Expires, 10)
	}
	if len(c.Labels) > 0 {
		b = append(b, `,"labels":`...)
		before := "{"
		for _, key := range slices.Sorted(maps.Keys(c.Labels)) {
			b = appendMember(b, before, key)
			b = appendMember(b, ":", c.Labels[key])
			before = ","
		}
		b = append(b, '}')
	}
	b = append(b, '}')
	if len(b) > maxCondition {
		return "", fmt.Errorf("encode condition: %d bytes, more than %d", len(b), maxCondition)
	}
	return string(b), nil
}

// appendMember appends a prefix and a quoted string. AppendQuote does not fail, since
// the string is valid UTF-8.
func appendMember(b []byte, before, value string) []byte {
	b, _ = jsontext.AppendQuote(append(b, before...), value)
	return b
}

// validate checks all limits except that of the text.
func (c Condition) validate() error {
	switch {
	case c.Session == SessionID{}:
		return errors.New("id is all zeros")
	case c.User == "":
		return errors.New("user is empty")
	case c.Minted < 0 || c.Minted > maxInteger:
		return errors.New("minted is not from 0 to 2^53")
	case !c.Mode.valid():
		return errors.New("mode is not open, rotate or held")
	case len(c.Policy) > maxPolicy:
		return fmt.Errorf("policy has more than %d bytes", maxPolicy)
	case strings.ContainsFunc(c.Policy, notInPolicy):
		return errors.New("policy has a character outside of a-z0-9_.-")
	case c.MaxTTL < 0 || c.MaxTTL%time.Second != 0:
		return errors.New("max_ttl is not a whole number of seconds, 1 or more")
	case c.Expires < 0 || c.Expires > maxInteger:
		return errors.New("expires is not from 1 to 2^53")
	}
	if err := checkUser(c.User); err != nil {
		return err
	}
	if err := CheckDevice(c.Device); err != nil {
		return err
	}
	return checkLabels(c.Labels)
}

func notInPolicy(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.'
}

func checkUser(user string) error {
	switch {
	case len(user) > MaxUser:
		return fmt.Errorf("user has more than %d bytes", MaxUser)
	case !utf8.ValidString(user):
		return errors.New("user is not UTF-8")
	case strings.ContainsFunc(user, unicode.IsControl):
		return errors.New("user has a control character")
	}
	return nil
}

// CheckDevice returns an error unless the name of a device is at most [MaxDevice]
// characters of UTF-8, control characters included. The empty name, of no device, is
// no error.
func CheckDevice(device string) error {
	switch {
	case len(device) > utf8.UTFMax*MaxDevice || utf8.RuneCountInString(device) > MaxDevice:
		return fmt.Errorf("device has more than %d characters", MaxDevice)
	case !utf8.ValidString(device):
		return errors.New("device is not UTF-8")
	}
	return nil
}

func checkLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return fmt.Errorf("labels has more than %d entries", maxLabels)
	}
	for key, value := range labels {
		switch {
		case key == "" || len(key) > maxLabelKey:
			return fmt.Errorf("labels has a key that is not of 1 to %d bytes", maxLabelKey)
		case len(value) > maxLabelValue:
			return fmt.Errorf("labels has a value of more than %d bytes, at %q", maxLabelValue, key)
		case !utf8.ValidString(key) || !utf8.ValidString(value):
			return errors.New("labels has a text that is not UTF-8")
		}
	}
	return nil
}
