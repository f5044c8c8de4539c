package server_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/testkit"
)

// servePiped has a server of the program serve within the process, with another
// limit on how long a request may take to be read and to be answered.
func servePiped(t *testing.T, srv *http.Server, limit time.Duration) *httptest.Server {
	srv.ReadTimeout, srv.WriteTimeout = limit, limit
	p := testkit.NewPipes()
	s := &httptest.Server{Listener: p.Listen(), Config: srv}
	s.Start()
	s.Client().Transport.(*http.Transport).DialContext = p.Dial
	t.Cleanup(s.Close)
	return s
}
