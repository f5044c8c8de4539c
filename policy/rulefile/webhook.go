package rulefile

import (
	"net/netip"
	"net/url"
	"time"

	"github.com/discharger/discharger/config/yamlfile"
)

// A Webhook is a decoded webhook; [webhook.Config] documents its parts.
type Webhook struct {
	Name          string
	At            *yamlfile.Node // position of the name
	URL           *url.URL
	SecretFile    *yamlfile.Node
	CAFile        *yamlfile.Node // nil: authorities of the system
	Timeout       time.Duration
	Cache         time.Duration // 0: no cache
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

func (f *File) readWebhooks(n *yamlfile.Node) {
	entries := f.Entries(n, "webhooks")
	if len(entries) > maxWebhooks {
		f.Invalid(n, "webhooks", "want at most %d webhooks, got %d", maxWebhooks, len(entries))
		return
	}
	for _, e := range entries {
		if f.name(e.At, "webhooks", e.Key) {
			f.Webhooks[e.Key] = f.readWebhook(e)
		}
	}
}

func (f *File) readWebhook(e yamlfile.Entry) *Webhook {
	w := &Webhook{Name: e.Key, At: e.At, Timeout: defaultHookTimeout, MaxConcurrent: defaultHookConcurrent}
	keys := f.Fields(e.Value, "webhooks."+e.Key,
		"url", "secret_file", "ca_file", "timeout", "on_error", "cache", "allow", "max_concurrent", "count_sessions")
	keys.At = e.At
	if n := keys.Get("allow"); n != nil {
		for _, item := range f.Items(n, "allow", maxList) {
			if p, ok := f.Prefix(item, "allow"); ok {
				w.Allow = append(w.Allow, p)
			}
		}
	}
	if n := keys.Require("url", ""); n != nil {
		w.URL = f.readURL(n, len(w.Allow) > 0)
	}
	w.SecretFile = f.fileName(keys.Require("secret_file", "it contains the key that signs requests"), "secret_file")
	w.CAFile = f.fileName(keys.Get("ca_file"), "ca_file")
	if n := keys.Get("timeout"); n != nil {
		w.Timeout, _ = f.Duration(n, "timeout", time.Millisecond, maxHookTimeout)
	}
	if n := keys.Get("cache"); n != nil {
		w.Cache, _ = f.Duration(n, "cache", time.Second, maxHookCache)
	}
	if n := keys.Get("on_error"); n != nil {
		text, _ := f.OneOf(n, "on_error", "unavailable", "deny")
		w.Deny = text == "deny"
	}
	if n := keys.Get("max_concurrent"); n != nil {
		w.MaxConcurrent, _ = f.Int(n, "max_concurrent", 1, 10000)
	}
	if n := keys.Get("count_sessions"); n != nil {
		w.CountSessions = f.Bool(n, "count_sessions")
	}
	return w
}

// fileName decodes the name of a file.
func (f *File) fileName(n *yamlfile.Node, path string) *yamlfile.Node {
	if n == nil {
		return nil
	}
	if _, ok := f.Text(n, path, 4096); !ok {
		return nil
	}
	return n
}

// readURL decodes the URL of a webhook. Answers without TLS can be
// forged, so http is restricted to networks under allow.
func (f *File) readURL(n *yamlfile.Node, restricted bool) *url.URL {
	text, ok := f.Text(n, "url", 2048)
	if !ok {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		f.Invalid(n, "url", "want an absolute URL such as https://risk.example.org/decide")
	case u.User != nil:
		f.Invalid(n, "url", "user name and password are not supported; requests are signed")
	case u.Fragment != "":
		f.Invalid(n, "url", "fragment is not supported")
	case u.Scheme == "https", u.Scheme == "http" && restricted:
		return u
	case u.Scheme == "http":
		f.Invalid(n, "url", "http requires networks under allow")
	default:
		f.Invalid(n, "url", "want http or https, got %.60s", u.Scheme)
	}
	return nil
}
