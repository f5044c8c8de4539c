// Package server is the HTTP API of the discharger: it decodes a request, calls the
// core once, and encodes the result.
//
// # Status codes
//
// Matrix clients delete their encryption keys when they are logged out, so a status
// must never be more definite than the decision:
//
//	200  done
//	400  malformed, not for this service, or from a homeserver it does not know
//	401  decided: the session gets no discharge (permission denied), or the API
//	     key is wrong, which decides nothing about a session (unauthorized)
//	405  another method than the path has
//	413  too large
//	429  too many failures from this address; never for a valid request
//	503  undecided: the same request may succeed later
//
// Requests over one of the [Limits] are undecided. For a homeserver, the end of a
// session is never replaced by a 429. Bodies are JSON with exactly the content type
// application/json, which bakery clients compare.
//
// # Limits of trust
//
// Query strings are not logged, since they contain ids, caveats and tokens.
// X-Forwarded-For is used only from trusted proxies. Nothing about a session is taken
// from anywhere but its sealed caveat.
package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/time/rate"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

// Config configures a [Server]. Service, PublicKey and Ready are required; the zero value
// of every other field is the documented default.
type Config struct {
	Service   *discharger.Service
	PublicKey caveat.PublicKey
	Ready     func(ctx context.Context) error // nil: the store is available

	// APIKeys has the SHA-256 of each homeserver's API keys.
	APIKeys map[string][][sha256.Size]byte

	TrustedProxies []netip.Prefix // whose X-Forwarded-For is used; nil: none
	AllowOrigins   []string       // of browser clients; nil: all
	Timeout        time.Duration  // of one request; 0: 2 s
	Limits         Limits         // on concurrent requests
	JWKS           []byte         // public keys of security events, a JSON Web Key Set; nil: the path does not exist
	Feed           FeedConfig     // of revocations

	Metrics  *Metrics            // nil: none
	Gatherer prometheus.Gatherer // of /metrics; nil: the path does not exist
	Log      *slog.Logger        // nil: no log
	Access   *slog.Logger        // of the one line per request; nil: Log

	now func() time.Time // set by WithClock; nil: time.Now
}

// WithClock returns a copy of the configuration in which now returns the time. It is
// for simulations, which turn time forward.
func (c Config) WithClock(now func() time.Time) Config {
	c.now = now
	return c
}

// Server answers HTTP requests. It is safe for concurrent use.
type Server struct {
	cfg      Config
	client   *echo.Echo
	admin    *echo.Echo
	keys     apiKeys
	failures *failures

	unknownKeys rate.Sometimes // limits log lines about API keys

	places   *places
	bodies   map[string]int64 // greatest size of a body by path; POST only
	warnFor  sync.Once        // about a malformed X-Forwarded-For
	draining atomic.Bool
}

// New checks the configuration and returns a server.
func New(cfg Config) (*Server, error) {
	if cfg.Service == nil || cfg.Ready == nil {
		return nil, errors.New("new server: service or readiness check is missing")
	}
	if cfg.PublicKey == (caveat.PublicKey{}) {
		return nil, errors.New("new server: public key is missing")
	}
	if cfg.Limits.InFlight < 0 || cfg.Limits.PerAddress < 0 {
		return nil, errors.New("new server: limit is negative")
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 2*time.Second)
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	cfg.Access = cmp.Or(cfg.Access, cfg.Log)
	if cfg.now == nil {
		cfg.now = time.Now
	}
	keys, err := newAPIKeys(cfg.APIKeys)
	if err != nil {
		return nil, err
	}
	if cfg.Feed.Heartbeat < 0 || cfg.Feed.Subscribers < 0 || cfg.Feed.WriteTimeout < 0 {
		return nil, errors.New("new server: setting of the feed is negative")
	}
	if cfg.Metrics == nil {
		if cfg.Metrics, err = NewMetrics(prometheus.NewRegistry()); err != nil {
			return nil, err
		}
	}
	cfg.Feed.complete()
	s := &Server{
		cfg: cfg, keys: keys, unknownKeys: rate.Sometimes{Interval: time.Second},
		failures: newFailures(cfg.now), places: newPlaces(cfg.Limits), bodies: make(map[string]int64),
	}
	cfg.Feed.Streams.begin(s)
	s.client = s.newEcho()
	s.client.Use(s.cors(), s.guard)
	segments := strings.NewReplacer("{", ":", "}", "") // echo's syntax
	for _, r := range s.clientRoutes() {
		s.client.Add(r.method, segments.Replace(r.path), r.handler)
		if r.body > 0 {
			s.bodies[r.path] = r.body
		}
	}
	s.admin = s.newEcho()
	for _, r := range s.adminRoutes() {
		s.admin.Add(r.method, r.path, r.handler)
	}
	return s, nil
}

type route struct {
	method, path string
	handler      echo.HandlerFunc
	body         int64 // greatest size in bytes; 0: no body
}

// clientRoutes returns all routes of the client-facing listener.
func (s *Server) clientRoutes() []route {
	routes := []route{
		{http.MethodPost, wire.PathDischarge, s.discharge, maxBody},
		{http.MethodPost, wire.PathLogout, s.logout, maxBody},
		{http.MethodPost, wire.PathOwnSessions, s.ownSessions, maxBody},
		{http.MethodPost, wire.PathRevokeOwn, s.revokeOwn, maxBody},
		{http.MethodGet, wire.PathInfo, s.info, 0},
		{http.MethodGet, wire.PathPublicKey, s.publicKey, 0},

		{http.MethodGet, wire.PathUserSessions, s.authorized(s.listSessions), 0},
		{http.MethodDelete, wire.PathUserSessions, s.authorized(s.revokeNamed), 0},
		{http.MethodDelete, wire.PathUserSession, s.authorized(s.revokeNamed), 0},
		{http.MethodDelete, wire.PathUserDevice, s.authorized(s.revokeNamed), 0},
		{http.MethodDelete, wire.PathSessions, s.authorized(s.revokeAll), 0},
		{http.MethodPost, wire.PathRevoke, s.authorized(s.revokeMany), maxBatch},
		{http.MethodGet, wire.PathMarks, s.authorized(s.marks), 0},
		{http.MethodDelete, wire.PathMarks, s.authorized(s.liftMarks), 0},
		{http.MethodPost, wire.PathSeen, s.authorized(s.seen), maxBatch},
		{http.MethodGet, wire.PathServiceReady, s.authorized(s.serviceReady), 0},
	}
	if s.cfg.JWKS != nil {
		routes = append(routes, route{http.MethodGet, wire.PathJWKS, s.jwks, 0})
	}
	if s.cfg.Feed.Source != nil {
		routes = append(routes, route{http.MethodGet, wire.PathRevocations, s.authorized(s.revocations), 0})
	}
	return routes
}

// adminRoutes returns all routes of the operator-facing listener.
func (s *Server) adminRoutes() []route {
	routes := []route{
		{http.MethodGet, wire.PathHealth, s.health, 0},
		{http.MethodGet, wire.PathReady, s.ready, 0},
	}
	if s.cfg.Gatherer != nil {
		metrics := promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{})
		routes = append(routes, route{http.MethodGet, wire.PathMetrics, echo.WrapHandler(metrics), 0})
	}
	return routes
}

func (s *Server) newEcho() *echo.Echo {
	e := echo.New()
	e.Logger.SetOutput(io.Discard) // echo's own logger; errors go to ours
	e.HTTPErrorHandler = s.fail
	return e
}

func (s *Server) cors() echo.MiddlewareFunc {
	return middleware.CORSWithConfig(middleware.CORSConfig{
		Skipper:      func(c echo.Context) bool { return len(c.Request().Header[echo.HeaderOrigin]) == 0 }, // no browser
		AllowOrigins: s.cfg.AllowOrigins,
		AllowMethods: []string{http.MethodGet, http.MethodPost},
		AllowHeaders: []string{
			wire.HeaderProtocol, "Macaroons", "X-Requested-With", echo.HeaderContentType, wire.HeaderAuthorization,
		},
		ExposeHeaders: []string{wire.HeaderRetryAfter},
		MaxAge:        int((24 * time.Hour).Seconds()),
	})
}

// guard gives every request a budget and a place, recovers panics, and writes the
// access line.
func (s *Server) guard(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		if c.Path() == wire.PathRevocations {
			return s.stream(next, c)
		}
		start, ctx := s.cfg.now(), newBudget(c.Request().Context(), s.cfg.Timeout)
		defer ctx.end()
		defer s.access(c, start, &ctx.visit, &ctx.seen)
		defer s.recovered(c, &err)
		s.identify(c.Request(), &ctx.visit)
		c.SetRequest(c.Request().WithContext(ctx))
		c.Response().Header().Set("Cache-Control", "no-store")
		if err := s.admit(c, &ctx.visit, next); err != nil {
			c.Error(err)
		}
		return nil
	}
}

// recovered, when deferred, answers a request that panicked.
func (s *Server) recovered(c echo.Context, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: panic: %v", discharger.ErrUnavailable, p)
		s.cfg.Log.LogAttrs(c.Request().Context(), slog.LevelError, "request panicked",
			slog.String("path", c.Path()), slog.Any("panic", p))
		c.Error(*err)
	}
}

// access writes the one log line of a request. It does not contain the query, which has
// tokens. For a decided request it has the session, the policy's rule and the version of
// the rules.
func (s *Server) access(c echo.Context, start time.Time, v *visit, seen *discharger.Observation) {
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs,
		slog.String("method", c.Request().Method), slog.String("path", c.Request().URL.Path),
		slog.Int("status", c.Response().Status), slog.Int64("bytes", c.Response().Size),
		slog.String("from", v.from()), slog.Duration("took", s.cfg.now().Sub(start)))
	if seen.Homeserver != "" {
		attrs = append(attrs, slog.String("homeserver", seen.Homeserver))
	}
	if seen.Session != (caveat.SessionID{}) {
		attrs = append(attrs, slog.String("session", seen.Session.String()))
	}
	if seen.Reason != "" {
		attrs = append(attrs, slog.String("reason", string(seen.Reason)))
	}
	if seen.Rule != "" {
		attrs = append(attrs, slog.String("rule", seen.Rule), slog.String("policy_hash", seen.PolicyHash))
	}
	s.cfg.Access.LogAttrs(c.Request().Context(), slog.LevelInfo, "request", attrs...)
}

// Client returns the handler for clients and homeservers.
func (s *Server) Client() http.Handler { return s.client }

// Admin returns the handler for operators. It must not be reachable publicly.
func (s *Server) Admin() http.Handler { return s.admin }

// Drain makes /readyz fail from now on, so that load balancers stop before the listener
// closes, and ends the streams of feeds.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.cfg.Feed.Streams.drain()
}

// HTTPServer returns a server for one of the handlers with every timeout and
// limit set. The caller serves and shuts it down.
func HTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxQuery,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}
