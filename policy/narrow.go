package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of a [Decision].
const (
	MinTTL        = time.Second // a discharge that has expired on arrival only makes the client ask again
	MaxRetryAfter = 24 * time.Hour
	MaxCaveats    = 16
	MaxCaveat     = 512 // bytes
	MaxCode       = 64  // bytes
	MaxMessage    = 256 // bytes
	MaxLabels     = 16  // of a decision, and of those stored with a session
	MaxLabelKey   = 64  // bytes
	MaxLabelValue = 256 // bytes
)

// ErrNoDecision is wrapped by the error of [Decision.Narrow] if the effect is
// unknown or a number is negative.
var ErrNoDecision = errors.New("not a decision")

// Narrow returns the part of a decision that the grant leaves room for. The
// lifetime is at most the longest one. Lifetime, caveats, labels and
// keep_sessions are dropped unless the effect is allow and the core grants a
// discharge. A reauth is always soft. An error means that the decision is
// unusable: unknown effect, negative number, or text that is too long or not
// printable.
//
// The decisions of rule files and of webhooks are narrowed.
func (d Decision) Narrow(g Grant) (Decision, error) {
	if !slices.Contains(Effects(), d.Effect) {
		return Decision{}, fmt.Errorf("effect %.60q: %w", d.Effect, ErrNoDecision)
	}
	if d.TTL < 0 || d.KeepSessions < 0 || d.RetryAfter < 0 {
		return Decision{}, fmt.Errorf("negative ttl, keep_sessions or retry_after: %w", ErrNoDecision)
	}
	if err := errors.Join(CheckCode(d.Code), CheckMessage(d.Message)); err != nil {
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
	d.SoftLogout = d.SoftLogout && d.Effect != EffectAllow || d.Effect == EffectReauth
	if d.Effect == EffectDefer {
		d.RetryAfter = min(d.RetryAfter, MaxRetryAfter)
	} else {
		d.RetryAfter = 0
	}
	return d, nil
}

// checkAdditions checks the caveats and labels of an allow.
func (d Decision) checkAdditions() error {
	if len(d.Caveats) > MaxCaveats {
		return fmt.Errorf("%d caveats; at most %d are allowed", len(d.Caveats), MaxCaveats)
	}
	for _, c := range d.Caveats {
		if err := CheckCaveat(c); err != nil {
			return err
		}
	}
	if len(d.Labels) > MaxLabels {
		return fmt.Errorf("%d labels; at most %d can be set", len(d.Labels), MaxLabels)
	}
	if len(d.Labels) == 0 {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(d.Labels)) {
		if err := CheckLabel(key, d.Labels[key]); err != nil {
			return err
		}
	}
	return nil
}

// CheckCaveat checks a first-party condition: a printable line that begins
// with the caveat's name.
func CheckCaveat(condition string) error {
	switch {
	case condition == "":
		return errors.New("the caveat is empty")
	case len(condition) > MaxCaveat:
		return fmt.Errorf("the caveat has %d bytes; at most %d are allowed", len(condition), MaxCaveat)
	case !utf8.ValidString(condition):
		return errors.New("the caveat is not UTF-8 text")
	case strings.TrimSpace(condition) != condition:
		return errors.New("the caveat begins or ends with a space")
	}
	// A homeserver trusts declared caveats as those of the service.
	if name, _, _ := strings.Cut(condition, " "); name == "declared" {
		return errors.New("the caveat declares something, which only the service does")
	}
	return printable(condition, "the caveat")
}

// CheckCode checks the code of a decision.
func CheckCode(code string) error {
	if len(code) > MaxCode {
		return fmt.Errorf("the code has %d bytes; at most %d are allowed", len(code), MaxCode)
	}
	for i := range len(code) {
		if b := code[i]; b != '_' && (b < 'a' || b > 'z') && (b < '0' || b > '9') {
			return fmt.Errorf("the code %.60q: a code has a-z, 0-9 and _", code)
		}
	}
	return nil
}

// CheckMessage checks the message of a decision.
func CheckMessage(message string) error {
	if len(message) > MaxMessage {
		return fmt.Errorf("the message has %d bytes; at most %d are allowed", len(message), MaxMessage)
	}
	return printable(message, "the message")
}

// CheckLabel checks a label of a decision.
func CheckLabel(key, value string) error {
	switch {
	case key == "":
		return errors.New("a label has no name")
	case len(key) > MaxLabelKey:
		return fmt.Errorf("the label's name has %d bytes; at most %d are allowed", len(key), MaxLabelKey)
	case len(value) > MaxLabelValue:
		return fmt.Errorf("the label %.60s has %d bytes; at most %d are allowed", key, len(value), MaxLabelValue)
	}
	if err := printable(key, "the label's name"); err != nil {
		return err
	}
	return printable(value, "the label "+key)
}

// printable refuses control characters, line breaks and everything else that
// moves a cursor.
func printable(s, what string) error {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%.80s has the character %q in it", what, r)
		}
	}
	return nil
}
