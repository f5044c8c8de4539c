package server

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

// ownSessions lists a user's sessions for one of them.
func (s *Server) ownSessions(c echo.Context) error {
	req, _, err := s.request(c)
	if err != nil {
		return err
	}
	own, list, err := s.cfg.Service.OwnSessions(c.Request().Context(), req)
	if err != nil {
		return err
	}
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
	return c.JSON(http.StatusOK, body)
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
		return &paramError{wire.ParamSession, "is not a session"}
	}
	return done(c, s.cfg.Service.RevokeOwn(c.Request().Context(), req, id))
}
