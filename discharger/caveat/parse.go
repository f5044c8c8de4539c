package caveat

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ParseCondition parses a condition as [Condition.Encode] writes it, with the members
// in any order and with white space between them, as other languages write JSON. It
// refuses, with an error that matches [ErrMalformed] and names the member: any other
// word than session; a member that is missing, unknown, duplicate or of another type,
// null included; integers that have a sign, a fraction or an exponent or are over 2⁵³;
// texts that exceed their limit, are not UTF-8, or have control characters; anything
// after the object.
func ParseCondition(text []byte) (Condition, error) {
	if len(text) > maxCondition {
		return Condition{}, fmt.Errorf("%w: condition has %d bytes, more than %d", ErrMalformed, len(text), maxCondition)
	}
	arg, ok := bytes.CutPrefix(text, []byte(conditionWord))
	if !ok {
		return Condition{}, fmt.Errorf("%w: condition does not begin with %q", ErrMalformed, conditionWord)
	}
	if c, ok := readPlain(arg); ok {
		return c, nil
	}
	var c Condition
	if err := c.read(arg); err != nil {
		return Condition{}, fmt.Errorf("%w: condition: %w", ErrMalformed, err)
	}
	return c, nil
}

// required are the members that every condition has.
var required = [...]string{"id", "user", "device", "minted", "mode"}

func (c *Condition) read(text []byte) error {
	o, err := openObject(text)
	if err != nil {
		return err
	}
	var seen [len(required)]bool
	for {
		name, ok, err := o.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := c.readMember(o, name); err != nil {
			return fmt.Errorf("%.64q: %w", name, err)
		}
		if i := slices.Index(required[:], name); i >= 0 {
			seen[i] = true
		}
	}
	if i := slices.Index(seen[:], false); i >= 0 {
		return fmt.Errorf("%q is missing", required[i])
	}
	if err := o.close(); err != nil {
		return err
	}
	return c.validate()
}

// readMember reads one value. In some fields zero means absent, so their members must
// not be zero.
func (c *Condition) readMember(o *object, name string) (err error) {
	var text string
	switch name {
	case "id":
		if text, err = o.str(); err == nil {
			c.Session, err = ParseSessionID(text)
		}
	case "user":
		c.User, err = o.str()
	case "device":
		c.Device, err = o.str()
	case "minted":
		c.Minted, err = o.integer()
	case "mode":
		if text, err = o.str(); err == nil {
			c.Mode, err = ParseMode(text)
		}
	case "policy":
		if c.Policy, err = o.str(); err == nil && c.Policy == "" {
			err = errors.New("empty")
		}
	case "max_ttl":
		c.MaxTTL, err = o.seconds()
	case "expires":
		if c.Expires, err = o.integer(); err == nil && c.Expires == 0 {
			err = errors.New("zero")
		}
	case "labels":
		c.Labels, err = o.labels()
	default:
		err = errors.New("unknown member")
	}
	return err
}

// seconds reads a duration of at least one second that fits into a time.Duration.
func (o *object) seconds() (time.Duration, error) {
	n, err := o.integer()
	if err != nil {
		return 0, err
	}
	if n < 1 || n > maxTTLSeconds {
		return 0, fmt.Errorf("not from 1 to %d seconds", maxTTLSeconds)
	}
	return time.Duration(n) * time.Second, nil
}

// labels reads an object of strings. The empty object is nil.
func (o *object) labels() (map[string]string, error) {
	if err := o.enter(); err != nil {
		return nil, err
	}
	var labels map[string]string
	for {
		key, ok, err := o.next()
		if err != nil {
			return nil, err
		}
		if !ok {
			return labels, nil
		}
		if len(labels) == maxLabels {
			return nil, fmt.Errorf("more than %d entries", maxLabels)
		}
		if labels == nil {
			labels = make(map[string]string)
		}
		if labels[key], err = o.str(); err != nil {
			return nil, fmt.Errorf("%.64q: %w", key, err)
		}
	}
}

// readPlain parses a condition in the spelling of [Condition.Encode], with the
// required members alone or with a policy, and with texts that need no escapes.
// Nearly all conditions are of this form, and it takes a fifth of the time of decoding
// JSON. ok is false for every other condition and for every malformed one;
// [Condition.read] parses those.
func readPlain(text []byte) (c Condition, ok bool) {
	p := plain{rest: text}
	id := p.text(`{"id":"`)
	c.User = string(p.text(`,"user":"`))
	c.Device = string(p.text(`,"device":"`))
	c.Minted = p.integer(`,"minted":`)
	mode := p.text(`,"mode":"`)
	if bytes.HasPrefix(p.rest, []byte(`,`)) {
		c.Policy = string(p.text(`,"policy":"`))
		p.bad = p.bad || c.Policy == ""
	}
	if p.bad || string(p.rest) != "}" {
		return Condition{}, false
	}
	var errID, errMode error
	c.Session, errID = ParseSessionID(string(id))
	c.Mode, errMode = ParseMode(string(mode))
	if errID != nil || errMode != nil || c.validate() != nil {
		return Condition{}, false
	}
	return c, true
}

// plain reads from the front of a text. After the first mismatch it is bad, and reads
// zeros.
type plain struct {
	rest []byte
	bad  bool
}

// after skips a word.
func (p *plain) after(word string) {
	var ok bool
	p.rest, ok = bytes.CutPrefix(p.rest, []byte(word))
	p.bad = p.bad || !ok
}

// text skips a word that ends in a quote, and reads up to the next quote: printable
// ASCII without a backslash, which needs no escapes in JSON.
func (p *plain) text(word string) []byte {
	p.after(word)
	value, rest, ok := bytes.Cut(p.rest, []byte(`"`))
	if p.bad = p.bad || !ok; p.bad {
		return nil
	}
	for _, b := range value {
		if b < 0x20 || b > 0x7e || b == '\\' {
			p.bad = true
			return nil
		}
	}
	p.rest = rest
	return value
}

// integer skips a word and reads up to 16 digits, without leading zeros, which do not
// overflow.
func (p *plain) integer(word string) (n int64) {
	p.after(word)
	digits := 0
	for digits < len(p.rest) && p.rest[digits] >= '0' && p.rest[digits] <= '9' && digits < 17 {
		n = n*10 + int64(p.rest[digits]-'0')
		digits++
	}
	if digits == 0 || digits == 17 || digits > 1 && p.rest[0] == '0' || p.bad {
		p.bad = true
		return 0
	}
	p.rest = p.rest[digits:]
	return n
}
