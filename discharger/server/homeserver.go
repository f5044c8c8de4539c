package server

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/wire"
)

// authorized calls the handler with the homeserver of the request's API key. Handlers
// reach that homeserver's sessions and no others.
func (s *Server) authorized(next func(c echo.Context, homeserver string) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		v := visitOf(c)
		if v.keyErr != nil {
			return v.keyErr
		}
		if v.homeserver == "" {
			return errUnauthorized
		}
		return next(c, v.homeserver)
	}
}

func (s *Server) listSessions(c echo.Context, homeserver string) error {
	user, err := segment(c, segmentUser)
	if err != nil {
		return err
	}
	key := store.UserKey{Homeserver: homeserver, User: user}
	ended, err := flag(c, wire.ParamEnded)
	if err != nil {
		return err
	}
	if ended {
		return s.listEnded(c, key)
	}
	list, err := s.cfg.Service.Sessions(c.Request().Context(), key)
	return reply(c, sessionsResponse(list), err)
}

func (s *Server) listEnded(c echo.Context, key store.UserKey) error {
	list, err := s.cfg.Service.EndedSessions(c.Request().Context(), key)
	body := wire.EndedResponse{Ended: make([]wire.EndedSession, len(list))}
	for i, x := range list {
		body.Ended[i] = wire.EndedSession{
			ID: x.ID, Device: x.Device, Kind: kindOf(x.End.Soft), Reason: string(x.End.Cause), At: time.UnixMilli(x.End.At).UTC(),
		}
	}
	return reply(c, body, err)
}

func kindOf(soft bool) string {
	if soft {
		return wire.KindSoft
	}
	return wire.KindHard
}

func sessionsResponse(list []discharger.SessionInfo) wire.SessionsResponse {
	body := wire.SessionsResponse{Sessions: make([]wire.SessionInfo, len(list))}
	for i, x := range list {
		body.Sessions[i] = wire.SessionInfo{
			ID: x.ID, Device: x.Device, Mode: x.Mode.String(), Policy: x.Policy, Created: x.Created, LastUsed: x.LastUsed,
			FirstIP: x.First.Addr, LastIP: x.Last.Addr, FirstClient: x.First.Client, LastClient: x.Last.Client,
			Epoch: x.Epoch, Labels: x.Labels,
		}
	}
	return body
}

// revokeNamed makes the revocation of a path: of a user, or of the session or device
// that the path names.
func (s *Server) revokeNamed(c echo.Context, homeserver string) error {
	var e wire.RevokeEntry
	var errUser, errName, errOptions error
	e.User, errUser = segment(c, segmentUser)
	switch {
	case slices.Contains(c.ParamNames(), segmentID):
		if e.Session, errName = caveat.ParseSessionID(c.Param(segmentID)); errName != nil || e.Session == (caveat.SessionID{}) {
			errName = badParam(segmentID, "is not a session")
		}
	case slices.Contains(c.ParamNames(), segmentDevice):
		e.Device, errName = segment(c, segmentDevice)
	}
	e.RevokeOptions, errOptions = readOrder(c)
	if err := errors.Join(errUser, errName, errOptions); err != nil {
		return err
	}
	if err := e.Check(); err != nil {
		return requestError(err.Error())
	}
	r, err := s.revoke(c, homeserver, &e)
	return reply(c, r, err)
}

// revoke makes one revocation.
func (s *Server) revoke(c echo.Context, homeserver string, e *wire.RevokeEntry) (r wire.Revoked, err error) {
	ctx, service := c.Request().Context(), s.cfg.Service
	key, o := store.UserKey{Homeserver: homeserver, User: e.User}, discharger.Order(e.RevokeOptions)
	var done discharger.Revoked
	switch {
	case e.Session != caveat.SessionID{}:
		done, err = service.Revoke(ctx, key, e.Session, o)
	case e.Device != "":
		done, err = service.RevokeDevice(ctx, key, e.Device, o)
	default:
		done, err = service.RevokeUser(ctx, key, o)
	}
	return wire.Revoked(done), err
}

func (s *Server) revokeAll(c echo.Context, homeserver string) error {
	order, err := readOrder(c)
	if err != nil {
		return err
	}
	if err := order.CheckAll(); err != nil {
		return requestError(err.Error())
	}
	err = s.cfg.Service.RevokeHomeserver(c.Request().Context(), homeserver, discharger.Order(order))
	return reply(c, wire.Revoked{Known: true, Marked: true}, err)
}

// revokeMany makes several revocations, each by itself. If one of them is malformed,
// none is made.
func (s *Server) revokeMany(c echo.Context, homeserver string) error {
	var body struct {
		Revoke []jsontext.Value `json:"revoke"`
	}
	if err := readJSON(c, "revoke", &body); err != nil {
		return err
	}
	if len(body.Revoke) == 0 || len(body.Revoke) > wire.MaxRevoke {
		return badParam("revoke", fmt.Sprintf("has no entries, or more than %d", wire.MaxRevoke))
	}
	entries := make([]wire.RevokeEntry, len(body.Revoke))
	for i, raw := range body.Revoke {
		if err := entries[i].UnmarshalJSON(raw); err != nil {
			return requestError(fmt.Sprintf("revoke[%d]: %v", i, err))
		}
	}
	out := wire.RevokeResponse{Results: make([]wire.RevokeResult, len(entries))}
	for i := range entries {
		r, err := s.revoke(c, homeserver, &entries[i])
		if err != nil {
			_, answer, _ := s.answer(err)
			out.Results[i].Error = &answer
			continue
		}
		out.Results[i].Revoked = r
	}
	return c.JSON(http.StatusOK, out)
}

// readJSON decodes a JSON body strictly.
func readJSON(c echo.Context, name string, out any) error {
	if err := jsonv2.Unmarshal(visitOf(c).body, out, jsonv2.RejectUnknownMembers(true)); err != nil {
		return badParam(name, "is not the JSON it should be")
	}
	return nil
}

func (s *Server) marks(c echo.Context, homeserver string) error {
	m, err := s.cfg.Service.Marks(c.Request().Context(), store.UserKey{Homeserver: homeserver, User: c.QueryParam(wire.ParamUser)})
	return reply(c, wire.Mark{User: m.User, Device: m.Device, Homeserver: m.Homeserver, Now: m.Now}, err)
}

func (s *Server) liftMarks(c echo.Context, homeserver string) error {
	n, err := s.cfg.Service.LiftMarks(c.Request().Context(), store.UserKey{Homeserver: homeserver, User: c.QueryParam(wire.ParamUser)})
	return reply(c, wire.Lifted{Lifted: n}, err)
}

// seen confirms epochs in order. After an error, the client reports the rest again.
func (s *Server) seen(c echo.Context, homeserver string) error {
	var body wire.SeenRequest
	if err := readJSON(c, "seen", &body); err != nil {
		return err
	}
	if len(body.Seen) > wire.MaxSeen {
		return badParam("seen", fmt.Sprintf("has more than %d entries", wire.MaxSeen))
	}
	for _, x := range body.Seen {
		key := store.UserKey{Homeserver: homeserver, User: x.User}
		if x.Session == (caveat.SessionID{}) || x.User == "" {
			return badParam("seen", "has an entry without user or session")
		}
		if err := s.cfg.Service.Seen(c.Request().Context(), key, x.Session, x.Epoch); err != nil {
			return err
		}
	}
	return done(c, nil)
}

// serviceReady answers 503 while the service drains or its store takes no writes, so
// that no session can begin.
func (s *Server) serviceReady(c echo.Context, _ string) error {
	if s.draining.Load() {
		return fmt.Errorf("%w: draining", discharger.ErrUnavailable)
	}
	if err := s.cfg.Ready(c.Request().Context()); err != nil {
		return fmt.Errorf("%w: %w", discharger.ErrUnavailable, err)
	}
	return done(c, nil)
}

// The segments of paths that are names.
const (
	segmentUser   = "user"
	segmentDevice = "device"
	segmentID     = "id" // of a session
)

// segment returns a segment of the path, decoded once.
func segment(c echo.Context, name string) (string, error) {
	value := c.Param(name)
	if c.Request().URL.RawPath != "" { // echo matched the encoded path
		decoded, err := url.PathUnescape(value)
		if err != nil {
			return "", badParam(name, "is not well encoded")
		}
		value = decoded
	}
	switch {
	case value == "" || !utf8.ValidString(value):
		return "", badParam(name, "is empty, or not UTF-8")
	case name == segmentDevice && caveat.CheckDevice(value) != nil:
		return "", badParam(name, "is longer than 512 characters")
	case name == segmentUser && len(value) > caveat.MaxUser:
		return "", badParam(name, "is longer than 255 bytes")
	}
	return value, nil
}

// readOrder parses the options of a revocation. A given parameter must not be empty.
func readOrder(c echo.Context) (o wire.RevokeOptions, err error) {
	q := c.QueryParams()
	known := []string{wire.ParamExcept, wire.ParamExceptDevice, wire.ParamDevices, wire.ParamKind, wire.ParamAge, wire.ParamEpoch}
	for name := range q { // a misspelt exception would revoke the excepted session
		if !slices.Contains(known, name) {
			return o, badParam("list", "has one that is not known here")
		}
	}
	for _, name := range known {
		if len(q[name]) > 1 {
			return o, badParam(name, "is given more than once")
		}
		if q.Has(name) && q.Get(name) == "" && name != wire.ParamExcept {
			return o, badParam(name, "is empty")
		}
	}
	if q.Has(wire.ParamExcept) {
		if o.Except, err = caveat.ParseSessionID(q.Get(wire.ParamExcept)); err != nil || o.Except == (caveat.SessionID{}) {
			return o, badParam(wire.ParamExcept, "is not one session")
		}
	}
	o.ExceptDevice = q.Get(wire.ParamExceptDevice)
	if o.Devices, err = flag(c, wire.ParamDevices); err != nil {
		return o, err
	}
	switch v := q.Get(wire.ParamKind); v {
	case "", wire.KindHard:
	case wire.KindSoft:
		o.Soft = true
	default:
		return o, badParam(wire.ParamKind, "is neither hard nor soft")
	}
	if v := q.Get(wire.ParamAge); v != "" {
		ms, err := strconv.ParseInt(v, 10, 64)
		if err != nil || ms < 0 || ms > wire.MaxAge.Milliseconds() {
			return o, badParam(wire.ParamAge, "is not a number of milliseconds, at most a year")
		}
		o.Age = time.Duration(ms) * time.Millisecond
	}
	if v := q.Get(wire.ParamEpoch); v != "" {
		if o.Epoch, err = strconv.ParseUint(v, 10, 63); err != nil {
			return o, badParam(wire.ParamEpoch, "is not a number")
		}
	}
	return o, nil
}

// flag parses a boolean parameter; missing is false.
func flag(c echo.Context, name string) (bool, error) {
	switch v := c.QueryParam(name); v {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, badParam(name, "is neither true nor false")
}

// reply answers with a body, unless there is an error.
func reply(c echo.Context, body any, err error) error {
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, body)
}

// done answers with an empty object, unless there is an error.
func done(c echo.Context, err error) error {
	if err != nil {
		return err
	}
	return c.JSONBlob(http.StatusOK, []byte("{}"))
}
