package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of a [Decision].
const (
	MinTTL        = time.Second // a shorter discharge may expire before it arrives
	MaxRetryAfter = 24 * time.Hour
	MaxCaveats    = 16
	MaxCaveat     = 512 // bytes
	MaxCode       = 64  // bytes
	MaxMessage    = 256 // bytes
	MaxLabels     = 16  // of a decision, and stored with a session
	MaxLabelKey   = 64  // bytes
	MaxLabelValue = 256 // bytes
)

// ErrNoDecision is wrapped by the error of [Decision.Narrow] if the effect is
// unknown or a number is negative.
var ErrNoDecision = errors.New("not a decision")

// Narrow restricts a decision to a grant. It cuts the lifetime to g.MaxTTL and drops
// lifetime, caveats, labels and keep_sessions unless the effect is allow and the core
// grants a discharge. A reauth is always soft. It returns an error for an unknown effect,
// a negative number, and text that is too long or not printable.
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
		return fmt.Errorf("%d caveats, want at most %d", len(d.Caveats), MaxCaveats)
	}
	for _, c := range d.Caveats {
		if err := CheckCaveat(c); err != nil {
			return err
		}
	}
	if len(d.Labels) > MaxLabels {
		return fmt.Errorf("%d labels, want at most %d", len(d.Labels), MaxLabels)
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

// CheckCaveat reports an error unless condition is a printable line that begins
// with a caveat name other than declared.
func CheckCaveat(condition string) error {
	switch {
	case condition == "":
		return errors.New("caveat is empty")
	case len(condition) > MaxCaveat:
		return fmt.Errorf("caveat has %d bytes, want at most %d", len(condition), MaxCaveat)
	case !utf8.ValidString(condition):
		return errors.New("caveat is not UTF-8")
	case strings.TrimSpace(condition) != condition:
		return errors.New("caveat begins or ends with white space")
	}
	// Homeservers trust declared caveats as statements of the service.
	if name, _, _ := strings.Cut(condition, " "); name == "declared" {
		return errors.New("caveat is declared, which is reserved for the service")
	}
	return printable(condition, "caveat")
}

// CheckCode reports an error unless code has at most MaxCode of a-z, 0-9 and _.
func CheckCode(code string) error {
	if len(code) > MaxCode {
		return fmt.Errorf("code has %d bytes, want at most %d", len(code), MaxCode)
	}
	for i := range len(code) {
		if b := code[i]; b != '_' && (b < 'a' || b > 'z') && (b < '0' || b > '9') {
			return fmt.Errorf("code: want a-z, 0-9 and _, got %.60q", code)
		}
	}
	return nil
}

// CheckMessage reports an error unless message is printable and has at most MaxMessage
// bytes.
func CheckMessage(message string) error {
	if len(message) > MaxMessage {
		return fmt.Errorf("message has %d bytes, want at most %d", len(message), MaxMessage)
	}
	return printable(message, "message")
}

// CheckLabel reports an error unless key and value are printable and within MaxLabelKey and
// MaxLabelValue bytes, and key is not empty.
func CheckLabel(key, value string) error {
	switch {
	case key == "":
		return errors.New("label without a name")
	case len(key) > MaxLabelKey:
		return fmt.Errorf("label name has %d bytes, want at most %d", len(key), MaxLabelKey)
	case len(value) > MaxLabelValue:
		return fmt.Errorf("label %.60s has %d bytes, want at most %d", key, len(value), MaxLabelValue)
	}
	if err := printable(key, "label name"); err != nil {
		return err
	}
	return printable(value, "label "+key)
}

// printable returns an error if s has a control character, a line break or another character
// that is not printable.
func printable(s, name string) error {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%.80s contains %q", name, r)
		}
	}
	return nil
}

// Ask evaluates a policy and narrows its decision to in.Grant. It is the
// border between policies and the service: the service trusts decisions of Ask
// only. A panic of the evaluator is returned as a [PanicError].
func Ask(ctx context.Context, e Evaluator, in *Input) (d Decision, err error) {
	defer func() {
		if r := recover(); r != nil {
			d, err = Decision{}, &PanicError{Value: r, Stack: debug.Stack()}
		}
	}()
	if d, err = e.Evaluate(ctx, in); err != nil {
		return Decision{}, err
	}
	rule := d.Rule
	if d, err = d.Narrow(in.Grant); err != nil {
		return Decision{}, fmt.Errorf("rule %s: %w", rule, err)
	}
	return d, nil
}

// PanicError is the error of an evaluation that panicked.
type PanicError struct {
	Value any    // argument of panic
	Stack []byte // as [debug.Stack] returns it
}

// Error returns the value of the panic, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("policy panicked: %v", e.Value) }
