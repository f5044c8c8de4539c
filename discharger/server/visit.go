package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/clientaddr"
)

// visit is the client and the body of a request, established before its handler runs.
type visit struct {
	addr       netip.Addr   // of the client, through trusted proxies; invalid: unknown
	network    netip.Prefix // that addr counts for
	homeserver string       // of the request's API key; empty: none
	keyErr     error        // of an unknown API key
	client     netip.Addr   // on whose behalf a homeserver sends it; invalid: its own
	body       []byte
	large      bool // the body counts as large
}

// kind indexes the counts of [places].
func (v *visit) kind() int {
	if v.homeserver != "" {
		return 1
	}
	return 0
}

// from returns the address for the log.
func (v *visit) from() string {
	if !v.addr.IsValid() {
		return ""
	}
	return v.addr.String()
}

// visitKey finds the visit in a request's context.
type visitKey struct{}

// visitOf returns the visit of a request; an empty one for requests of operators.
func visitOf(c echo.Context) *visit {
	if v, ok := c.Request().Context().Value(visitKey{}).(*visit); ok {
		return v
	}
	return new(visit)
}

// identify sets the address and the homeserver of a request.
func (s *Server) identify(r *http.Request, v *visit) {
	o := clientaddr.Of(r, s.cfg.TrustedProxies)
	if o.Malformed != "" {
		s.malformedFor(r.Context(), o)
	}
	v.addr, v.network = o.Addr, clientaddr.Network(o.Addr)
	v.homeserver, v.keyErr = s.keys.authenticate(r.Header)
}

// malformedFor counts a request with a malformed X-Forwarded-For, and logs the first one.
func (s *Server) malformedFor(ctx context.Context, o clientaddr.Origin) {
	s.cfg.Metrics.badFor.Inc()
	s.warnFor.Do(func() {
		s.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "X-Forwarded-For not understood, clients have the proxy's address",
			slog.String("element", o.Malformed), slog.String("proxy", o.Addr.String()))
	})
}

// admit reads the request's body, takes a place, and calls the handler.
func (s *Server) admit(c echo.Context, v *visit, next echo.HandlerFunc) error {
	r := c.Request()
	if err := s.places.arrive(v); err != nil {
		abandonBody(c)
		return err
	}
	defer s.places.leave(v)
	limit := s.bodies[c.Path()]
	if r.Method != http.MethodPost || limit > maxBody && v.homeserver == "" {
		limit = 0 // the route has no body, or none without an API key
	}
	if limit == 0 {
		abandonBody(c)
	} else if r.ContentLength != 0 {
		if err := s.readBody(c, v, limit); err != nil {
			abandonBody(c)
			return err
		}
	}
	if err := s.places.take(v); err != nil {
		return err
	}
	defer s.places.done(&s.places.taken, v)
	return next(c)
}

// abandonBody leaves the rest of a body unread: the connection is closed after the
// answer, instead of being held until the body has arrived.
func abandonBody(c echo.Context) {
	if c.Request().ContentLength == 0 {
		return
	}
	c.Response().Header().Set("Connection", "close")
	setReadDeadline(c, time.Unix(1, 0))
}

// setReadDeadline sets the deadline of reading the body, if there is a connection.
func setReadDeadline(c echo.Context, t time.Time) {
	_ = http.NewResponseController(c.Response()).SetReadDeadline(t)
}

var errLateBody = fmt.Errorf("%w: the body did not arrive in time", discharger.ErrUnavailable)

// readBody reads the whole body, until the request's deadline, which also applies to
// the later detection of a disconnected client. Memory is allocated as the body arrives.
func (s *Server) readBody(c echo.Context, v *visit, limit int64) error {
	r := c.Request()
	if r.ContentLength > limit {
		return &http.MaxBytesError{Limit: limit}
	}
	if err := s.places.read(v); err != nil {
		return err
	}
	defer s.places.done(&s.places.reading, v)
	if deadline, ok := r.Context().Deadline(); ok {
		setReadDeadline(c, deadline)
	}
	const first = 2 << 10 // most bodies are smaller
	size := int64(first)
	if r.ContentLength >= 0 {
		size = min(size, r.ContentLength+1)
	}
	b := make([]byte, 0, size)
	for {
		n, err := r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > limit:
			return &http.MaxBytesError{Limit: limit}
		case err == io.EOF:
			v.body = b
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, io.ErrUnexpectedEOF):
			return errLateBody // or the client hung up
		case err != nil:
			return badParam("body", "cannot be read")
		}
		if len(b) < cap(b) {
			continue
		}
		if len(b) > maxBody/2 && limit > maxBody {
			if err := s.places.grow(v); err != nil {
				return err
			}
		}
		b = slices.Grow(b, min(len(b), int(limit)+1-len(b)))
	}
}
