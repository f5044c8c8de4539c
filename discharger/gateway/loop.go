package gateway

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
)

// An upstream can lead back to the gateway: by its own address, by a port that is
// forwarded to it, or through another proxy. Every request to the homeserver
// carries CDN-Loop (RFC 8586) with a name that is drawn for this process, and one
// that arrives with the name has been here before.

const headerLoop = "Cdn-Loop"

// ErrLoop is returned by [Gateway.CheckUpstream].
var ErrLoop = errors.New("upstream leads back to this gateway, set it to the address of the homeserver itself")

// newLoopName draws the name of a process.
func newLoopName(random io.Reader) (string, error) {
	var b [8]byte
	if err := fillRandom(random, b[:]); err != nil {
		return "", err
	}
	return "discharger-" + hex.EncodeToString(b[:]), nil
}

// markLoop notes in a request to the homeserver that it passed here.
func (g *Gateway) markLoop(h http.Header) { h[headerLoop] = append(h[headerLoop], g.loopName) }

// wasHere reports whether a header names this process.
func (g *Gateway) wasHere(h http.Header) bool {
	for _, v := range h[headerLoop] {
		for name := range strings.SplitSeq(v, ",") {
			name, _, _ = strings.Cut(name, ";")
			if strings.TrimSpace(name) == g.loopName {
				return true
			}
		}
	}
	return false
}

// refuseLoop returns the answer to a request that passed this gateway before; nil:
// it did not. The answer has the name too, for CheckUpstream.
func (g *Gateway) refuseLoop(w http.ResponseWriter, r *http.Request) *failure {
	if !g.wasHere(r.Header) {
		return nil
	}
	g.cfg.Log.LogAttrs(r.Context(), slog.LevelError, "request came back, upstream leads to this gateway",
		slog.String("upstream", g.cfg.Upstream))
	w.Header().Set(headerLoop, g.loopName)
	return &failure{
		status: http.StatusLoopDetected, code: codeUnknown, outcome: outcomeUpstream,
		message: "The gateway's upstream leads back to the gateway.",
	}
}

// cameBack reports whether an answer is one of refuseLoop's.
func (g *Gateway) cameBack(resp *http.Response) bool {
	return resp.StatusCode == http.StatusLoopDetected && g.wasHere(resp.Header)
}

// CheckUpstream asks upstream something, and returns ErrLoop if the request comes
// back. The gateway must be serving. A homeserver that does not answer is no error:
// it may come later.
func (g *Gateway) CheckUpstream(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.patience.health)
	defer cancel()
	if _, _, err := g.ask(ctx, pathVersions, "", forWhom{}); errors.Is(err, ErrLoop) {
		return err
	}
	return nil
}
