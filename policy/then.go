package policy

import (
	"slices"
	"time"

	"go.yaml.in/yaml/v3"
)

// A thenDef is what a rule decides. What may hold an expression is a node.
type thenDef struct {
	at       *yaml.Node
	constant Decision
	webhook  string // its name; nothing else is set then
	ttl      *yaml.Node
	caveats  []*yaml.Node
	labels   []entry
}

// thenKeys returns the keys of a then, and those that an effect allows.
func thenKeys() []string {
	return []string{"effect", "webhook", "ttl", "caveats", "code", "message", "soft_logout", "labels", "keep_sessions", "retry_after"}
}

func keysOf(e Effect) []string {
	switch e {
	case EffectAllow:
		return []string{"ttl", "caveats", "labels", "keep_sessions"}
	case EffectDefer:
		return []string{"retry_after"}
	case EffectReauth:
		return []string{"code", "message"}
	}
	return []string{"code", "message", "soft_logout"}
}

// readThen reads an effect by itself, or a mapping of all that is decided.
func (f *fileDef) readThen(n *yaml.Node, what string) *thenDef {
	t := &thenDef{at: n}
	if n.Kind == yaml.ScalarNode {
		return t.withEffect(f.effect(n))
	}
	keys := f.src.keys(n, what, thenKeys()...)
	if hook := keys["webhook"]; hook != nil {
		if len(keys) > 1 {
			f.src.errorAt(n, "a webhook decides everything itself; %s has no other keys beside webhook", what)
		}
		t.webhook, _ = f.src.text(hook, "webhook", maxEntry)
		return t
	}
	at := keys["effect"]
	if at == nil {
		if n.Kind == yaml.MappingNode {
			f.src.errorAt(n, "%s has no effect", what)
		}
		return t
	}
	t.withEffect(f.effect(at))
	if t.constant.Effect != "" {
		f.readExtras(t, keys)
	}
	return t
}

func (t *thenDef) withEffect(e Effect) *thenDef {
	t.constant.Effect = e
	return t
}

func (f *fileDef) effect(n *yaml.Node) Effect {
	var names []string
	for _, e := range Effects() {
		names = append(names, string(e))
	}
	text, ok := f.src.text(n, "an effect", maxEntry)
	if !ok {
		return ""
	}
	for _, name := range names {
		if text == name {
			return Effect(name)
		}
	}
	f.src.errorAt(n, "there is no effect %q%s", shorten(text), oneOfThese(text, names))
	return ""
}

// readExtras reads what stands beside an effect.
func (f *fileDef) readExtras(t *thenDef, keys map[string]*yaml.Node) {
	effect, d := t.constant.Effect, &t.constant
	allowed := keysOf(effect)
	for _, key := range thenKeys()[2:] {
		n := keys[key]
		if n == nil {
			continue
		}
		if !slices.Contains(allowed, key) {
			f.src.errorAt(n, "%s has no meaning with the effect %s", key, effect)
			continue
		}
		switch key {
		case "ttl":
			t.ttl = n
		case "caveats":
			t.caveats = f.src.items(n, key, maxCaveats)
		case "code":
			d.Code = f.checked(n, key, maxCode, checkCode)
		case "message":
			d.Message = f.checked(n, key, maxMessage, checkMessage)
		case "soft_logout":
			d.SoftLogout = f.src.flag(n, key)
		case "labels":
			t.labels = f.src.entries(n, key)
			if len(t.labels) > maxSetLabels {
				f.src.errorAt(n, "%d labels; at most %d can be set", len(t.labels), maxSetLabels)
			}
		case "keep_sessions":
			d.KeepSessions = f.src.number(n, key, 1, 10000)
		case "retry_after":
			d.RetryAfter = f.duration(n, key, minTTL, maxRetryAfter)
		}
	}
}

// checked reads a string that has rules of its own.
func (f *fileDef) checked(n *yaml.Node, what string, most int, check func(string) error) string {
	s, ok := f.src.text(n, what, most)
	if !ok {
		return ""
	}
	if err := check(s); err != nil {
		f.src.errorAt(n, "%v", err)
		return ""
	}
	return s
}

// duration reads a duration between two others.
func (f *fileDef) duration(n *yaml.Node, what string, least, most time.Duration) time.Duration {
	if n.Kind != yaml.ScalarNode {
		f.src.errorAt(n, "%s is a duration such as 90s, not %s", what, describe(n))
		return 0
	}
	d, err := parseDuration(n.Value)
	if err != nil {
		f.src.errorAt(n, "%s: %v", what, err)
		return 0
	}
	if d < least || d > most {
		f.src.errorAt(n, "%s is from %s to %s, not %s", what, least, most, d)
		return 0
	}
	f.src.unanchored(n)
	return d
}
