package policy

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A webhookDef is a webhook as a rule file describes it.
type webhookDef struct {
	name          string
	at            *yaml.Node
	url           *url.URL
	secretFile    *yaml.Node
	caFile        *yaml.Node
	timeout       time.Duration
	cache         time.Duration
	deny          bool // on_error
	allow         []netip.Prefix
	maxConcurrent int
	countSessions bool
}

// Defaults and limits of webhooks.
const (
	defaultHookTimeout    = 300 * time.Millisecond
	maxHookTimeout        = 5 * time.Second
	maxHookCache          = time.Hour
	defaultHookConcurrent = 64
	maxWebhooks           = 32
	minSecretBytes        = 32
	maxSecretBytes        = 4096
	maxCABytes            = 1 << 20
)

func (f *fileDef) readWebhooks(n *yaml.Node) {
	f.webhooks = map[string]*webhookDef{}
	if n == nil {
		return
	}
	entries := f.src.entries(n, "webhooks")
	if len(entries) > maxWebhooks {
		f.src.errorAt(n, "%d webhooks; at most %d are allowed", len(entries), maxWebhooks)
		return
	}
	for _, e := range entries {
		if f.src.nameAt(e.at, e.key, "the webhook") {
			f.webhooks[e.key] = f.readWebhook(e)
		}
	}
}

func (f *fileDef) readWebhook(e entry) *webhookDef {
	w := &webhookDef{name: e.key, at: e.at, timeout: defaultHookTimeout, maxConcurrent: defaultHookConcurrent}
	keys := f.src.keys(e.value, "the webhook "+e.key,
		"url", "secret_file", "ca_file", "timeout", "on_error", "cache", "allow", "max_concurrent", "count_sessions")
	if n := keys["allow"]; n != nil {
		w.allow = f.readAllow(n)
	}
	if n := keys["url"]; n == nil {
		f.src.errorAt(e.at, "the webhook %s has no url", e.key)
	} else {
		w.url = f.readURL(n, len(w.allow) > 0)
	}
	if w.secretFile = f.fileName(keys["secret_file"], "secret_file"); keys["secret_file"] == nil {
		f.src.errorAt(e.at, "the webhook %s has no secret_file, the key that signs what it is sent", e.key)
	}
	w.caFile = f.fileName(keys["ca_file"], "ca_file")
	if n := keys["timeout"]; n != nil {
		w.timeout = f.duration(n, "timeout", time.Millisecond, maxHookTimeout)
	}
	if n := keys["cache"]; n != nil {
		w.cache = f.duration(n, "cache", time.Second, maxHookCache)
	}
	if n := keys["on_error"]; n != nil {
		switch n.Value {
		case "deny":
			w.deny = true
		case "unavailable":
		default:
			f.src.errorAt(n, "on_error is unavailable or deny, not %s", describe(n))
		}
	}
	if n := keys["max_concurrent"]; n != nil {
		w.maxConcurrent = f.src.number(n, "max_concurrent", 1, 10000)
	}
	if n := keys["count_sessions"]; n != nil {
		w.countSessions = f.src.flag(n, "count_sessions")
	}
	return w
}

// fileName checks that a node is the name of a file.
func (f *fileDef) fileName(n *yaml.Node, what string) *yaml.Node {
	if n == nil {
		return nil
	}
	if _, ok := f.src.text(n, what, 4096); !ok {
		return nil
	}
	return n
}

func (f *fileDef) readAllow(n *yaml.Node) []netip.Prefix {
	var out []netip.Prefix
	for _, item := range f.strings(n, "allow") {
		p, err := parsePrefix(item.Value)
		if err != nil {
			f.src.errorAt(item, "%v", err)
			continue
		}
		out = append(out, p)
	}
	return out
}

// readURL checks where questions go. Without TLS the answer could be anyone's,
// so plain http is for networks that are listed under allow.
func (f *fileDef) readURL(n *yaml.Node, restricted bool) *url.URL {
	text, ok := f.src.text(n, "url", 2048)
	if !ok {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		f.src.errorAt(n, "url is a complete address such as https://risk.example.org/decide")
	case u.User != nil:
		f.src.errorAt(n, "url has a user name or password in it; what is sent is signed instead")
	case u.Fragment != "":
		f.src.errorAt(n, "url has a fragment, which is never sent")
	case u.Scheme == "https", u.Scheme == "http" && restricted:
		return u
	case u.Scheme == "http":
		f.src.errorAt(n, "url is http, which is allowed only with a list allow of the networks it may be in")
	default:
		f.src.errorAt(n, "url is http or https, not %s", shorten(u.Scheme))
	}
	return nil
}

// A secret is a key that never shows itself.
type secret []byte

const redacted = "REDACTED"

func (secret) String() string               { return redacted }
func (secret) GoString() string             { return redacted }
func (secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// readSecret reads the key from its file, less the white space around it.
func (l *loader) readSecret(name string) (secret, error) {
	data, err := l.read(name, maxSecretBytes+1)
	if err != nil {
		return nil, err
	}
	key := strings.TrimSpace(string(data))
	switch {
	case len(data) > maxSecretBytes:
		return nil, fmt.Errorf("%s: the key has more than %d bytes", name, maxSecretBytes)
	case len(key) < minSecretBytes:
		return nil, fmt.Errorf("%s: the key has %d bytes, and needs %d", name, len(key), minSecretBytes)
	}
	return secret(key), nil
}

// readCAs reads the certificates that a webhook's may be signed by.
func (l *loader) readCAs(name string) (*x509.CertPool, error) {
	data, err := l.read(name, maxCABytes)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, errors.New(name + ": there is no certificate in it")
	}
	return pool, nil
}
