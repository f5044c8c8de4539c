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
