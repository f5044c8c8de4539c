package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// ErrNoDecision is what [Decision.Narrow] returns for a decision whose effect
// is none of the six.
var ErrNoDecision = errors.New("not a decision")

// Effects returns all effects, in the order of the documentation.
func Effects() []Effect {
	return []Effect{EffectAllow, EffectDeny, EffectRevoke, EffectRevokeUser, EffectReauth, EffectDefer}
}

// Narrow returns what is left of a decision within a grant: no lifetime
// beyond the longest, nothing at all that only an allow can give if it is no
// allow or the core refuses, and a soft logout with every reauth. An error
// says that the decision cannot be used: no effect, a negative number, or text
// that is too long or not printable.
//
// The decisions of a [Set] and of a webhook have been through it.
func (d Decision) Narrow(g Grant) (Decision, error) {
	if !slices.Contains(Effects(), d.Effect) {
		return Decision{}, fmt.Errorf("effect %q: %w", shorten(string(d.Effect)), ErrNoDecision)
	}
	if d.TTL < 0 || d.KeepSessions < 0 || d.RetryAfter < 0 {
		return Decision{}, fmt.Errorf("a negative ttl, keep_sessions or retry_after: %w", ErrNoDecision)
	}
	if err := checkCode(d.Code); err != nil {
		return Decision{}, err
	}
	if err := checkMessage(d.Message); err != nil {
		return Decision{}, err
	}
	if d.Effect == EffectAllow && g.TTL > 0 {
		if err := d.checkAdditions(); err != nil {
			return Decision{}, err
		}
		longest := g.MaxTTL
		if longest <= 0 {
			longest = g.TTL
		}
		d.TTL = min(d.TTL, longest)
	} else {
		d.TTL, d.Caveats, d.Labels, d.KeepSessions = 0, nil, nil, 0
	}
	if d.Effect == EffectAllow {
		d.SoftLogout = false
	}
	if d.Effect == EffectReauth {
		d.SoftLogout = true
	}
	if d.Effect == EffectDefer {
		d.RetryAfter = min(d.RetryAfter, maxRetryAfter)
	} else {
		d.RetryAfter = 0
	}
	return d, nil
}

// checkAdditions checks what a decision adds to a discharge and a session.
func (d Decision) checkAdditions() error {
	if len(d.Caveats) > maxCaveats {
		return fmt.Errorf("%d caveats; at most %d are allowed", len(d.Caveats), maxCaveats)
	}
	for _, c := range d.Caveats {
		if err := checkCaveatText(c); err != nil {
			return err
		}
	}
	if len(d.Labels) > maxSetLabels {
		return fmt.Errorf("%d labels; at most %d can be set", len(d.Labels), maxSetLabels)
	}
	if len(d.Labels) == 0 {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(d.Labels)) {
		if err := checkLabel(key, d.Labels[key]); err != nil {
			return err
		}
	}
	return nil
}

func checkCode(code string) error {
	if len(code) > maxCode {
		return fmt.Errorf("the code has %d bytes; at most %d are allowed", len(code), maxCode)
	}
	for i := range len(code) {
		if b := code[i]; b != '_' && (b < 'a' || b > 'z') && (b < '0' || b > '9') {
			return fmt.Errorf("the code %q: a code has a-z, 0-9 and _", shorten(code))
		}
	}
	return nil
}

func checkMessage(message string) error {
	if len(message) > maxMessage {
		return fmt.Errorf("the message has %d bytes; at most %d are allowed", len(message), maxMessage)
	}
	return printable(message, "the message")
}

func checkLabel(key, value string) error {
	switch {
	case key == "":
		return errors.New("a label without a name")
	case len(key) > maxLabelKey:
		return fmt.Errorf("the label's name has %d bytes; at most %d are allowed", len(key), maxLabelKey)
	case len(value) > maxLabelValue:
		return fmt.Errorf("the label %s has %d bytes; at most %d are allowed", shorten(key), len(value), maxLabelValue)
	}
	if err := printable(key, "the label's name"); err != nil {
		return err
	}
	return printable(value, "the label "+shorten(key))
}

// minTTL is the shortest lifetime a rule can ask for. A discharge that is over
// when it arrives would only make clients ask again at once.
const minTTL = time.Second
