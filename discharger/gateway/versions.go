package gateway

import (
	"log/slog"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// refreshVersion is the version of the specification that refresh tokens came
// with.
const refreshVersion = "v1.3"

// answerVersions adds to the versions that the homeserver speaks the one that
// the gateway brings.
func (g *Gateway) answerVersions(resp *http.Response) error {
	data, err := readResponse(resp)
	if err != nil {
		return err
	}
	body, err := parseObject(data)
	if err != nil {
		g.leave(resp, "versions")
		return nil
	}
	var versions []string
	if err := json.Unmarshal(body.get("versions"), &versions); err != nil || slices.Contains(versions, refreshVersion) {
		return nil
	}
	text, err := json.Marshal(append(versions, refreshVersion))
	if err != nil {
		return err
	}
	body.set("versions", jsontext.Value(text))
	setResponseBody(resp, body.encode())
	return nil
}

// answerWellKnown makes clients come back to the gateway.
func (g *Gateway) answerWellKnown(resp *http.Response) error {
	if g.live().PublicURL == "" {
		return nil
	}
	data, err := readResponse(resp)
	if err != nil {
		return err
	}
	body, err := parseObject(data)
	if err != nil {
		g.leave(resp, ".well-known")
		return nil
	}
	if g.rebaseObject(&body) {
		setResponseBody(resp, body.encode())
	}
	return nil
}

// rebase changes the URL in a member that is a .well-known.
func (g *Gateway) rebase(body *object, name string) {
	inner, err := parseObject(body.get(name))
	if err == nil && g.rebaseObject(&inner) {
		body.set(name, inner.encode())
	}
}

func (g *Gateway) rebaseObject(body *object) bool {
	const memberHomeserver, memberBase = "m.homeserver", "base_url"
	hs, err := parseObject(body.get(memberHomeserver))
	if g.live().PublicURL == "" || err != nil || hs.get(memberBase) == nil {
		return false
	}
	hs.set(memberBase, quote(g.live().PublicURL))
	body.set(memberHomeserver, hs.encode())
	return true
}

// leave notes that an answer stays as it is.
func (g *Gateway) leave(resp *http.Response, what string) {
	g.cfg.Log.LogAttrs(resp.Request.Context(), slog.LevelWarn, "the homeserver's answer is not the JSON it should be",
		slog.String("answer", what))
}
