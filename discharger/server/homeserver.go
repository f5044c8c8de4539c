package server

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/labstack/echo/v4"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
)

// authorized lets a request through that carries an API key, and says whose.
// Handlers behind it reach that homeserver's sessions and no others.
func (s *Server) authorized(next func(c echo.Context, homeserver string) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		homeserver, err := s.keys.authenticate(c.Request().Header)
		if err == nil && homeserver == "" {
			err = errUnauthorized
		}
		if err != nil {
			return err
		}
		return next(c, homeserver)
	}
}

func (s *Server) listSessions(c echo.Context, homeserver string) error {
	user, err := segment(c, "user")
	if err != nil {
		return err
	}
	list, err := s.cfg.Service.Sessions(c.Request().Context(), discharger.UserKey{Homeserver: homeserver, User: user})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, sessionsResponse(list))
}

func sessionsResponse(list []discharger.SessionInfo) api.SessionsResponse {
	body := api.SessionsResponse{Sessions: make([]api.SessionInfo, len(list))}
	for i, x := range list {
		body.Sessions[i] = api.SessionInfo{
			ID: x.ID, Device: x.Device, Mode: x.Mode.String(), Policy: x.Policy, Created: x.Created, LastUsed: x.LastUsed,
			FirstIP: x.First.Addr, LastIP: x.Last.Addr, FirstClient: x.First.Client, LastClient: x.Last.Client,
			Epoch: x.Epoch, Labels: x.Labels,
		}
	}
	return body
}

func (s *Server) revokeUser(c echo.Context, homeserver string) error {
	user, err := segment(c, "user")
	except, err2 := except(c)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	return done(c, s.cfg.Service.RevokeUser(c.Request().Context(), discharger.UserKey{Homeserver: homeserver, User: user}, except))
}

func (s *Server) revokeSession(c echo.Context, homeserver string) error {
	user, err := segment(c, "user")
	id, err2 := caveat.ParseSessionID(c.Param("id"))
	if err2 != nil {
		err2 = &paramError{"id", "is not a session"}
	}
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	return done(c, s.cfg.Service.Revoke(c.Request().Context(), discharger.UserKey{Homeserver: homeserver, User: user}, id))
}

func (s *Server) revokeDevice(c echo.Context, homeserver string) error {
	user, err := segment(c, "user")
	device, err2 := segment(c, "device")
	except, err3 := except(c)
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	key := discharger.UserKey{Homeserver: homeserver, User: user}
	return done(c, s.cfg.Service.RevokeDevice(c.Request().Context(), key, device, except))
}

func (s *Server) revokeAll(c echo.Context, homeserver string) error {
	return done(c, s.cfg.Service.RevokeHomeserver(c.Request().Context(), homeserver))
}

// seen notes what it can. What is left after an error can be reported again.
func (s *Server) seen(c echo.Context, homeserver string) error {
	var body api.SeenRequest
	r := http.MaxBytesReader(c.Response(), c.Request().Body, maxSeen)
	if err := jsonv2.UnmarshalRead(r, &body, jsonv2.RejectUnknownMembers(true)); err != nil {
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			return tooLarge
		}
		return &paramError{"seen", "is not the JSON it should be"}
	}
	if len(body.Seen) > api.MaxSeen {
		return &paramError{"seen", fmt.Sprintf("has more than %d entries", api.MaxSeen)}
	}
	for _, x := range body.Seen {
		key := discharger.UserKey{Homeserver: homeserver, User: x.User}
		if x.Session == (caveat.SessionID{}) || x.User == "" {
			return &paramError{"seen", "has an entry without user or session"}
		}
		if err := s.cfg.Service.Seen(c.Request().Context(), key, x.Session, x.Epoch); err != nil {
			return err
		}
	}
	return done(c, nil)
}

const maxSeen = 512 << 10 // bytes

// segment returns a segment of the path, decoded once.
func segment(c echo.Context, name string) (string, error) {
	value := c.Param(name)
	if c.Request().URL.RawPath != "" { // what echo matched is still encoded
		decoded, err := url.PathUnescape(value)
		if err != nil {
			return "", &paramError{name, "is not well encoded"}
		}
		value = decoded
	}
	if value == "" || len(value) > 255 || !utf8.ValidString(value) {
		return "", &paramError{name, "is empty, longer than 255 bytes, or not UTF-8"}
	}
	return value, nil
}

// except returns the session to leave alone; zero if there is none.
func except(c echo.Context) (caveat.SessionID, error) {
	values := c.QueryParams()[api.ParamExcept]
	if len(values) == 0 {
		return caveat.SessionID{}, nil
	}
	id, err := caveat.ParseSessionID(values[0])
	if err != nil || len(values) > 1 {
		return id, &paramError{api.ParamExcept, "is not one session"}
	}
	return id, nil
}

func done(c echo.Context, err error) error {
	if err != nil {
		return err
	}
	return c.JSONBlob(http.StatusOK, []byte("{}"))
}
