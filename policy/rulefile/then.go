package rulefile

import (
	"slices"
	"strings"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy"
)

// A Then is the decision of a rule. Parts that may contain an expression are nodes.
type Then struct {
	At       *yamlfile.Node   // position
	Decision policy.Decision  // constant parts
	Webhook  string           // name; the other parts are empty then
	TTL      *yamlfile.Node   // expression
	Caveats  []*yamlfile.Node // templates
	Labels   []yamlfile.Entry // templates
}

// ThenKeys returns the keys of then.
func ThenKeys() []string {
	return []string{"effect", "webhook", "ttl", "caveats", "code", "message", "soft_logout", "labels", "keep_sessions", "retry_after"}
}

// keysOf returns the keys that are valid with an effect.
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

// readThen decodes an effect, or a mapping with the parts of a decision.
func (f *File) readThen(n *yamlfile.Node, path string) *Then {
	t := &Then{At: n}
	if yamlfile.IsScalar(n) {
		t.Decision.Effect = f.effect(n, path)
		return t
	}
	keys := f.Fields(n, path, ThenKeys()...)
	if hook := keys.Get("webhook"); hook != nil {
		if keys.Len() > 1 {
			f.Invalid(n, path, "want no other key beside webhook")
		}
		t.Webhook, _ = f.Text(hook, "webhook", maxEntry)
		return t
	}
	if t.Decision.Effect = f.effect(keys.Require("effect", ""), "effect"); t.Decision.Effect != "" {
		f.readExtras(t, keys)
	}
	return t
}

func (f *File) effect(n *yamlfile.Node, path string) policy.Effect {
	var names []string
	for _, e := range policy.Effects() {
		names = append(names, string(e))
	}
	text, _ := f.OneOf(n, path, names...)
	return policy.Effect(text)
}

// readExtras decodes the keys beside effect.
func (f *File) readExtras(t *Then, keys *yamlfile.Fields) {
	effect, d := t.Decision.Effect, &t.Decision
	allowed := keysOf(effect)
	for _, key := range ThenKeys()[2:] {
		n := keys.Get(key)
		if n == nil {
			continue
		}
		if !slices.Contains(allowed, key) {
			f.Invalid(n, key, "has no meaning with effect %s", effect)
			continue
		}
		switch key {
		case "ttl":
			f.ttl(t, n)
		case "caveats":
			t.Caveats = f.texts(n, key, policy.MaxCaveats, policy.MaxCaveat)
		case "code":
			d.Code = f.checked(n, key, policy.MaxCode, policy.CheckCode)
		case "message":
			d.Message = f.checked(n, key, policy.MaxMessage, policy.CheckMessage)
		case "soft_logout":
			d.SoftLogout = f.Bool(n, key)
		case "labels":
			for _, e := range f.Entries(n, key) {
				if _, ok := f.Text(e.Value, "labels."+e.Key, policy.MaxLabelValue); ok {
					t.Labels = append(t.Labels, e)
				}
			}
			if len(t.Labels) > policy.MaxLabels {
				f.Invalid(n, key, "want at most %d labels, got %d", policy.MaxLabels, len(t.Labels))
			}
		case "keep_sessions":
			d.KeepSessions, _ = f.Int(n, key, 1, 10000)
		case "retry_after":
			d.RetryAfter, _ = f.Duration(n, key, policy.MinTTL, policy.MaxRetryAfter)
		}
	}
}

// ttl decodes a lifetime: a duration, or an expression of that type.
func (f *File) ttl(t *Then, n *yamlfile.Node) {
	text, ok := f.Raw(n, "ttl", "a duration such as 5m, or an expression")
	if !ok {
		return
	}
	d, err := yamlfile.ParseDuration(text)
	switch {
	case err == nil && d < policy.MinTTL:
		f.Invalid(n, "ttl", "want at least %s, got %s", policy.MinTTL, d)
	case err == nil:
		t.Decision.TTL = d
	case strings.ContainsAny(text, "._("):
		t.TTL = n
	default:
		f.Invalid(n, "ttl", "%v", err)
	}
}

// checked decodes a string and checks it.
func (f *File) checked(n *yamlfile.Node, path string, most int, check func(string) error) string {
	s, ok := f.Text(n, path, most)
	if !ok {
		return ""
	}
	if err := check(s); err != nil {
		f.Errorf(n, "%v", err)
		return ""
	}
	return s
}
