package upstream

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
)

const headerLoop = "Cdn-Loop"

// ErrLoop is returned for an address of the homeserver that leads back to the gateway.
var ErrLoop = errors.New("upstream leads back to this gateway, set it to the address of the homeserver itself")

func newLoopName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return "discharger-" + hex.EncodeToString(b[:])
}

// Mark adds the name of this process to the headers of a request to the homeserver.
func (c *Client) Mark(h http.Header) { h[headerLoop] = append(h[headerLoop], c.loop) }

// Answer adds the name of this process to the headers of the answer to a loop.
func (c *Client) Answer(h http.Header) { h.Set(headerLoop, c.loop) }

// Looped reports whether the headers of a request name this process.
func (c *Client) Looped(h http.Header) bool {
	for _, v := range h[headerLoop] {
		for name := range strings.SplitSeq(v, ",") {
			name, _, _ = strings.Cut(name, ";")
			if strings.TrimSpace(name) == c.loop {
				return true
			}
		}
	}
	return false
}

// cameBack reports whether an answer is the gateway's own to a loop.
func (c *Client) cameBack(resp *http.Response) bool {
	return resp.StatusCode == http.StatusLoopDetected && c.Looped(resp.Header)
}
