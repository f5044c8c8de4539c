package upstream

import (
	"errors"
	"net/url"
	"path/filepath"
	"strings"
)

// Scheme of a homeserver that listens on a Unix socket, and the host of requests to
// it. A request that is passed on keeps the client's host.
const (
	schemeUnix = "unix"
	socketHost = "localhost"
)

// parseAddress parses the address of a homeserver: http or https and a host, or
// unix: and the absolute path of a socket.
func parseAddress(text string) (u *url.URL, socket string, err error) {
	if path, ok := strings.CutPrefix(text, schemeUnix+":"); ok {
		if !filepath.IsAbs(path) || strings.HasPrefix(path, "//") {
			return nil, "", errors.New("path of socket is invalid, want one such as unix:/run/matrix/synapse.sock")
		}
		return &url.URL{Scheme: "http", Host: socketHost}, path, nil
	}
	u, err = ParseBase(text)
	return u, "", err
}

// ParseBase parses a URL that consists of http or https and a host.
func ParseBase(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("url is invalid, want http or https and a host only")
	}
	return u, nil
}
