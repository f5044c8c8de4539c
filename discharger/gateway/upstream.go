package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// The scheme of a homeserver behind a socket of the file system, and the host
// that it is asked for there. Where a client's request is passed on, the host is
// the one that the client asked for.
const (
	schemeUnix = "unix"
	socketHost = "localhost"
)

// parseUpstream reads where the homeserver is.
func parseUpstream(text string) (u *url.URL, socket string, err error) {
	if path, ok := strings.CutPrefix(text, schemeUnix+":"); ok {
		if !filepath.IsAbs(path) || strings.HasPrefix(path, "//") {
			return nil, "", errors.New("want unix: and the path of a socket from the root, such as unix:/run/matrix/synapse.sock")
		}
		return &url.URL{Scheme: "http", Host: socketHost}, path, nil
	}
	u, err = parseBase(text)
	return u, "", err
}

// parseBase reads a URL that paths are put after.
func parseBase(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("want http or https and a host, and nothing after it")
	}
	return u, nil
}

// newUpstreamTransport leads to the homeserver.
func (g *Gateway) newUpstreamTransport(secure *tls.Config) *http.Transport {
	t := g.newTransport()
	t.TLSClientConfig = secure.Clone()
	if g.socket != "" {
		dialer := &net.Dialer{Timeout: dialPatience}
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, schemeUnix, g.socket)
		}
	}
	return t
}

const (
	pathLoginFlows = "/_matrix/client/v3/login"
	pathVersions   = "/_matrix/client/versions"
)

// upstreamPause is between two attempts to ask the homeserver something at the
// start.
const upstreamPause = 5 * time.Second

// inspectUpstream asks the homeserver once how clients log in, and warns if the
// gateway can do nothing for them: where logins are delegated to an
// authentication service, tokens do not come from the homeserver.
func (g *Gateway) inspectUpstream(ctx context.Context) {
	for first := true; ; first = false {
		status, body, err := g.ask(ctx, pathLoginFlows, "", forWhom{})
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && status == http.StatusNotFound, err == nil && delegated(body):
			g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "the homeserver delegates logins to an authentication service: "+
				"tokens that come from there are passed on as they are, and the gateway cannot revoke them")
			return
		case err == nil && status == http.StatusOK:
			return
		case first:
			g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "the homeserver does not answer yet", slog.String("upstream", g.cfg.Upstream),
				slog.Int("status", status), slog.Any("error", err))
		}
		if !sleep(ctx, upstreamPause) {
			return
		}
	}
}

// delegated reads the ways to log in.
func delegated(body object) bool {
	var flows []map[string]any
	if err := json.Unmarshal(body.get("flows"), &flows); err != nil {
		return false
	}
	for _, f := range flows {
		if f["oauth_aware_preferred"] == true || f["org.matrix.msc3824.delegated_oidc_compatibility"] == true {
			return true
		}
	}
	return false
}

// whoami asks the homeserver about a token of its own.
func (g *Gateway) whoami(ctx context.Context, token string, who forWhom) (status int, body object, err error) {
	return g.ask(ctx, pathWhoami, token, who)
}

// ask asks the homeserver something, on behalf of a client if there is one: the
// homeserver shows users when and from where their devices were seen last. An
// answer that is not JSON has no body.
func (g *Gateway) ask(ctx context.Context, path, token string, who forWhom) (status int, body object, err error) {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.patience.upstream)
	defer cancel()
	req, err := g.newUpstreamRequest(ctx, http.MethodGet, path, token, who)
	if err != nil {
		return 0, nil, err
	}
	g.markLoop(req.Header)
	resp, err := g.proxy.Transport.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if g.cameBack(resp) {
		return 0, nil, ErrLoop
	}
	data, err := readResponse(resp)
	if err != nil {
		return 0, nil, err
	}
	if body, err = parseObject(data); err != nil {
		return resp.StatusCode, nil, nil
	}
	return resp.StatusCode, body, nil
}

// newUpstreamRequest makes a request of the gateway's own. It has the address and
// the name of the client on whose behalf it is. One without a client has an empty
// X-Forwarded-For: Synapse takes that for a request from nowhere, and notes neither
// address nor time for the device.
func (g *Gateway) newUpstreamRequest(ctx context.Context, method, path, token string, who forWhom) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, g.upstream.String()+path, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set(headerAuthorization, bearer+token)
	}
	req.Header[headerFor] = []string{""}
	req.Header[headerProto] = []string{cmp.Or(g.live().publicScheme(), "https")}
	req.Header.Set("User-Agent", ownUserAgent)
	who.set(req.Header)
	return req, nil
}

// ownUserAgent is the name of the gateway in requests of its own.
const ownUserAgent = "discharger-gateway"
