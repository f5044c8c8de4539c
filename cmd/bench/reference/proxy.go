package reference

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
)

// newReverseProxy returns the least that a gateway can be. The transport's default of
// two idle connections would make it open new ones all the time.
func newReverseProxy(s Spec) (http.Handler, error) {
	target, err := url.Parse(s.Upstream)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, 1024
	return &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: transport,
	}, nil
}

// newHomeserver returns a handler that answers every login with a new token, and all
// other requests with the same bytes.
func newHomeserver(s Spec) http.Handler {
	var logins atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/login") {
			n := logins.Add(1)
			fmt.Fprintf(w, `{"user_id":"@u%d:example.org","access_token":"syt_dG9rZW4_%024d_4Fz1","device_id":"DEVICE%d","home_server":"example.org"}`, n, n, n)
			return
		}
		_, _ = w.Write(s.Body) // a failed write shows as a failed request
	})
}
