package rulefile

import (
	"cmp"
	"net/url"
	"time"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy/webhook"
)

// A Webhook is a decoded webhook without the contents of its files.
type Webhook struct {
	webhook.Config
	SecretFile *yamlfile.Node
	CAFile     *yamlfile.Node // nil: authorities of the system
}

// Defaults and limits of webhooks.
const (
	defaultHookTimeout    = 300 * time.Millisecond
	maxHookTimeout        = 5 * time.Second
	maxHookCache          = time.Hour
	defaultHookConcurrent = 64
	maxWebhooks           = 32
)

func (f *File) readWebhook(e yamlfile.Entry) *Webhook {
	w := &Webhook{Config: webhook.Config{Name: e.Key}}
	keys := f.Fields(e.Value, "webhooks."+e.Key,
		"url", "secret_file", "ca_file", "timeout", "on_error", "cache", "allow", "max_concurrent", "count_sessions")
	keys.At = e.At
	w.Allow = f.prefixes(keys.Get("allow"), "allow")
	w.URL = f.readURL(keys.Require("url", ""), len(w.Allow) > 0)
	w.SecretFile = f.fileName(keys.Require("secret_file", "it contains the key that signs requests"), "secret_file")
	w.CAFile = f.fileName(keys.Get("ca_file"), "ca_file")
	timeout, _ := f.Duration(keys.Get("timeout"), "timeout", time.Millisecond, maxHookTimeout)
	w.Timeout = cmp.Or(timeout, defaultHookTimeout)
	w.Cache, _ = f.Duration(keys.Get("cache"), "cache", time.Second, maxHookCache)
	onError, _ := f.OneOf(keys.Get("on_error"), "on_error", "unavailable", "deny")
	w.Deny = onError == "deny"
	concurrent, _ := f.Int(keys.Get("max_concurrent"), "max_concurrent", 1, 10000)
	w.MaxConcurrent = cmp.Or(concurrent, defaultHookConcurrent)
	w.CountSessions = f.Bool(keys.Get("count_sessions"), "count_sessions")
	return w
}

// fileName decodes the name of a file.
func (f *File) fileName(n *yamlfile.Node, path string) *yamlfile.Node {
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
