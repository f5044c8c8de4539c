package server

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

func (s *Server) discharge(c echo.Context) error {
	req, _, err := s.request(c)
	if err != nil {
		return err
	}
	g, err := s.cfg.Service.Discharge(c.Request().Context(), req)
	if err != nil {
		return err
	}
	m, err := g.Discharge.AppendJSON(make([]byte, 0, 512))
	if err != nil {
		return err
	}
	body := wire.DischargeResponse{Macaroon: m, ExpiresIn: g.ExpiresIn.Milliseconds()}
	if g.RefreshToken != nil {
		body.RefreshToken = wire.EncodeBase64(g.RefreshToken)
	}
	return c.JSONBlob(http.StatusOK, body.Append(make([]byte, 0, 1024)))
}

func (s *Server) logout(c echo.Context) error {
	req, p, err := s.request(c)
	if err != nil {
		return err
	}
	scope := discharger.ScopeSession
	switch v := wire.Scope(p.text(wire.ParamScope)); v {
	case "", wire.ScopeSession:
	case wire.ScopeUser:
		scope = discharger.ScopeUser
	default:
		return badParam(wire.ParamScope, "is neither session nor user")
	}
	if p.err != nil {
		return p.err
	}
	return done(c, s.cfg.Service.Logout(c.Request().Context(), req, scope))
}

// ownSessions lists a user's sessions for one of them.
func (s *Server) ownSessions(c echo.Context) error {
	req, _, err := s.request(c)
	if err != nil {
		return err
	}
	own, list, err := s.cfg.Service.OwnSessions(c.Request().Context(), req)
	body := sessionsResponse(list)
	for i := range body.Sessions {
		x := &body.Sessions[i]
		x.Current = x.ID == own
		x.Policy, x.Labels, x.Epoch = "", nil, 0
		if x.Current { // the holder of a copied token must not see when its owner uses it
			x.LastUsed, x.LastIP, x.LastClient = time.Time{}, netip.Addr{}, ""
		}
	}
	slices.SortStableFunc(body.Sessions, func(a, b wire.SessionInfo) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	return reply(c, body, err)
}

// revokeOwn ends one of a user's sessions for another.
func (s *Server) revokeOwn(c echo.Context) error {
	req, p, err := s.request(c)
	if err != nil {
		return err
	}
	id, err := caveat.ParseSessionID(p.text(wire.ParamSession))
	if p.err != nil {
		return p.err
	}
	if err != nil {
		return badParam(wire.ParamSession, "is not a session")
	}
	return done(c, s.cfg.Service.RevokeOwn(c.Request().Context(), req, id))
}

func (s *Server) info(c echo.Context) error {
	return c.JSON(http.StatusOK, wire.InfoResponse{PublicKey: s.cfg.PublicKey.String(), Version: 3})
}

func (s *Server) publicKey(c echo.Context) error {
	return c.JSON(http.StatusOK, wire.PublicKeyResponse{PublicKey: s.cfg.PublicKey.String()})
}

func (s *Server) jwks(c echo.Context) error { return c.JSONBlob(http.StatusOK, s.cfg.JWKS) }

func (s *Server) health(c echo.Context) error {
	return c.JSONBlob(http.StatusOK, []byte(`{"status":"ok"}`))
}

func (s *Server) ready(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), time.Second)
	defer cancel()
	if s.draining.Load() {
		return c.JSONBlob(http.StatusServiceUnavailable, []byte(`{"status":"draining"}`))
	}
	if err := s.cfg.Ready(ctx); err != nil {
		s.cfg.Log.WarnContext(ctx, "not ready", "error", err)
		return c.JSON(http.StatusServiceUnavailable, map[string]string{"status": "store unavailable", "error": err.Error()})
	}
	return c.JSONBlob(http.StatusOK, []byte(`{"status":"ready"}`))
}
