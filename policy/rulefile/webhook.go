package rulefile

import (
	"net/netip"
	"net/url"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/discharger/discharger/policy/cel"
)

// A Webhook is a webhook as a rule file describes it.
type Webhook struct {
	Name          string
	At            *yaml.Node
	URL           *url.URL
	SecretFile    *yaml.Node
	CAFile        *yaml.Node // nil: the system's authorities
	Timeout       time.Duration
	Cache         time.Duration // 0: no caching
	Deny          bool          // on_error: deny
	Allow         []netip.Prefix
	MaxConcurrent int
	CountSessions bool
}

// Defaults and limits of webhooks.
const (
	defaultHookTimeout    = 300 * time.Millisecond
	maxHookTimeout        = 5 * time.Second
	maxHookCache          = time.Hour
	defaultHookConcurrent = 64
	maxWebhooks           = 32
)

func (f *File) readWebhooks(n *yaml.Node) {
	f.Webhooks = map[string]*Webhook{}
	if n == nil {
		return
	}
	entries := f.entries(n, "webhooks")
	if len(entries) > maxWebhooks {
		f.ErrorAt(n, "%d webhooks; at most %d are allowed", len(entries), maxWebhooks)
		return
	}
	for _, e := range entries {
		if f.nameAt(e.At, e.Key, "the webhook") {
			f.Webhooks[e.Key] = f.readWebhook(e)
		}
	}
}

func (f *File) readWebhook(e Entry) *Webhook {
	w := &Webhook{Name: e.Key, At: e.At, Timeout: defaultHookTimeout, MaxConcurrent: defaultHookConcurrent}
	keys := f.keys(e.Value, "the webhook "+e.Key,
		"url", "secret_file", "ca_file", "timeout", "on_error", "cache", "allow", "max_concurrent", "count_sessions")
	if n := keys["allow"]; n != nil {
		w.Allow = f.readAllow(n)
	}
	if n := keys["url"]; n == nil {
		f.ErrorAt(e.At, "the webhook %s has no url", e.Key)
	} else {
		w.URL = f.readURL(n, len(w.Allow) > 0)
	}
	if w.SecretFile = f.fileName(keys["secret_file"], "secret_file"); keys["secret_file"] == nil {
		f.ErrorAt(e.At, "the webhook %s has no secret_file, the key that signs what it is sent", e.Key)
	}
	w.CAFile = f.fileName(keys["ca_file"], "ca_file")
	if n := keys["timeout"]; n != nil {
		w.Timeout = f.duration(n, "timeout", time.Millisecond, maxHookTimeout)
	}
	if n := keys["cache"]; n != nil {
		w.Cache = f.duration(n, "cache", time.Second, maxHookCache)
	}
	if n := keys["on_error"]; n != nil {
		switch n.Value {
		case "deny":
			w.Deny = true
		case "unavailable":
		default:
			f.ErrorAt(n, "on_error is unavailable or deny, not %s", describe(n))
		}
	}
	if n := keys["max_concurrent"]; n != nil {
		w.MaxConcurrent = f.number(n, "max_concurrent", 1, 10000)
	}
	if n := keys["count_sessions"]; n != nil {
		w.CountSessions = f.flag(n, "count_sessions")
	}
	return w
}

// fileName checks that a node is the name of a file.
func (f *File) fileName(n *yaml.Node, what string) *yaml.Node {
	if n == nil {
		return nil
	}
	if _, ok := f.text(n, what, 4096); !ok {
		return nil
	}
	return n
}

func (f *File) readAllow(n *yaml.Node) []netip.Prefix {
	var out []netip.Prefix
	for _, item := range f.strings(n, "allow", "an entry of allow", maxList, maxEntry) {
		p, err := cel.ParsePrefix(item.Value)
		if err != nil {
			f.ErrorAt(item, "%v", err)
			continue
		}
		out = append(out, p)
	}
	return out
}

// readURL checks where questions go. Without TLS the answer could be anyone's,
// so plain http is for networks that are listed under allow.
func (f *File) readURL(n *yaml.Node, restricted bool) *url.URL {
	text, ok := f.text(n, "url", 2048)
	if !ok {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		f.ErrorAt(n, "url is a complete address such as https://risk.example.org/decide")
	case u.User != nil:
		f.ErrorAt(n, "url has a user name or password in it; what is sent is signed instead")
	case u.Fragment != "":
		f.ErrorAt(n, "url has a fragment, which is never sent")
	case u.Scheme == "https", u.Scheme == "http" && restricted:
		return u
	case u.Scheme == "http":
		f.ErrorAt(n, "url is http, which is allowed only with a list allow of the networks it may be in")
	default:
		f.ErrorAt(n, "url is http or https, not %.60s", u.Scheme)
	}
	return nil
}
