package rulefile

import (
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/cel"
)

// A Then is what a rule decides. What may hold an expression is a node.
type Then struct {
	At       *yaml.Node
	Decision policy.Decision // the constant parts
	Webhook  string          // its name; nothing else is set then
	TTL      *yaml.Node      // an expression
	Caveats  []*yaml.Node    // templates
	Labels   []Entry         // templates
}

// ThenKeys returns the keys of a then.
func ThenKeys() []string {
	return []string{"effect", "webhook", "ttl", "caveats", "code", "message", "soft_logout", "labels", "keep_sessions", "retry_after"}
}

// keysOf returns the keys that an effect allows beside it.
func keysOf(e policy.Effect) []string {
	switch e {
	case policy.EffectAllow:
		return []string{"ttl", "caveats", "labels", "keep_sessions"}
	case policy.EffectDefer:
		return []string{"retry_after"}
	case policy.EffectReauth:
		return []string{"code", "message"}
	}
	return []string{"code", "message", "soft_logout"}
}

// readThen reads an effect by itself, or a mapping of all that is decided.
func (f *File) readThen(n *yaml.Node, what string) *Then {
	t := &Then{At: n}
	if n.Kind == yaml.ScalarNode {
		return t.withEffect(f.effect(n))
	}
	keys := f.keys(n, what, ThenKeys()...)
	if hook := keys["webhook"]; hook != nil {
		if len(keys) > 1 {
			f.ErrorAt(n, "a webhook decides everything itself; %s has no other keys beside webhook", what)
		}
		t.Webhook, _ = f.text(hook, "webhook", maxEntry)
		return t
	}
	at := keys["effect"]
	if at == nil {
		if n.Kind == yaml.MappingNode {
			f.ErrorAt(n, "%s has no effect", what)
		}
		return t
	}
	t.withEffect(f.effect(at))
	if t.Decision.Effect != "" {
		f.readExtras(t, keys)
	}
	return t
}

func (t *Then) withEffect(e policy.Effect) *Then {
	t.Decision.Effect = e
	return t
}

func (f *File) effect(n *yaml.Node) policy.Effect {
	var names []string
	for _, e := range policy.Effects() {
		names = append(names, string(e))
	}
	text, ok := f.text(n, "an effect", maxEntry)
	if !ok {
		return ""
	}
	for _, name := range names {
		if text == name {
			return policy.Effect(name)
		}
	}
	f.ErrorAt(n, "there is no effect %.60q%s", text, cel.OneOf(text, names))
	return ""
}

// readExtras reads what stands beside an effect.
func (f *File) readExtras(t *Then, keys map[string]*yaml.Node) {
	effect, d := t.Decision.Effect, &t.Decision
	allowed := keysOf(effect)
	for _, key := range ThenKeys()[2:] {
		n := keys[key]
		if n == nil {
			continue
		}
		if !slices.Contains(allowed, key) {
			f.ErrorAt(n, "%s has no meaning with the effect %s", key, effect)
			continue
		}
		switch key {
		case "ttl":
			f.ttl(t, n)
		case "caveats":
			t.Caveats = f.strings(n, key, "a caveat", policy.MaxCaveats, policy.MaxCaveat)
		case "code":
			d.Code = f.checked(n, key, policy.MaxCode, policy.CheckCode)
		case "message":
			d.Message = f.checked(n, key, policy.MaxMessage, policy.CheckMessage)
		case "soft_logout":
			d.SoftLogout = f.flag(n, key)
		case "labels":
			for _, e := range f.entries(n, key) {
				if _, ok := f.text(e.Value, "a label", policy.MaxLabelValue); ok {
					t.Labels = append(t.Labels, e)
				}
			}
			if len(t.Labels) > policy.MaxLabels {
				f.ErrorAt(n, "%d labels; at most %d can be set", len(t.Labels), policy.MaxLabels)
			}
		case "keep_sessions":
			d.KeepSessions = f.number(n, key, 1, 10000)
		case "retry_after":
			d.RetryAfter = f.duration(n, key, policy.MinTTL, policy.MaxRetryAfter)
		}
	}
}

// ttl reads a lifetime: a duration, or an expression that yields one.
func (f *File) ttl(t *Then, n *yaml.Node) {
	if n.Kind != yaml.ScalarNode || !untagged(n) {
		f.ErrorAt(n, "ttl is a duration such as 5m, or an expression, not %s", describe(n))
		return
	}
	f.unanchored(n)
	d, err := policy.ParseDuration(n.Value)
	switch {
	case err == nil && d < policy.MinTTL:
		f.ErrorAt(n, "ttl is at least %s, not %s", policy.MinTTL, d)
	case err == nil:
		t.Decision.TTL = d
	case strings.ContainsAny(n.Value, "._("):
		t.TTL = n
	default:
		f.ErrorAt(n, "ttl: %v", err)
	}
}

// checked reads a string that has rules of its own.
func (f *File) checked(n *yaml.Node, what string, most int, check func(string) error) string {
	s, ok := f.text(n, what, most)
	if !ok {
		return ""
	}
	if err := check(s); err != nil {
		f.ErrorAt(n, "%v", err)
		return ""
	}
	return s
}

// duration reads a duration between two others.
func (f *File) duration(n *yaml.Node, what string, least, most time.Duration) time.Duration {
	if n.Kind != yaml.ScalarNode {
		f.ErrorAt(n, "%s is a duration such as 90s, not %s", what, describe(n))
		return 0
	}
	d, err := policy.ParseDuration(n.Value)
	if err != nil {
		f.ErrorAt(n, "%s: %v", what, err)
		return 0
	}
	if d < least || d > most {
		f.ErrorAt(n, "%s is from %s to %s, not %s", what, least, most, d)
		return 0
	}
	f.unanchored(n)
	return d
}
