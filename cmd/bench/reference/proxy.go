package reference

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
)

// newReverseProxy is what there is to a gateway at least. Go's own limit of two
// idle connections would make it open new ones all the time.
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

// newHomeserver logs everybody in, each with a token of their own, and answers
// everything else with the same bytes.
func newHomeserver(s Spec) http.Handler {
	var logins atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/login") {
			n := logins.Add(1)
			fmt.Fprintf(w, `{"user_id":"@u%d:example.org","access_token":"syt_dG9rZW4_%024d_4Fz1","device_id":"DEVICE%d","home_server":"example.org"}`, n, n, n)
			return
		}
		_, _ = w.Write(s.Body) // whoever does not read it measures nothing
	})
}
