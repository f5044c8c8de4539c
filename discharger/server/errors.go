package server

import (
	"cmp"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/wire"
)

// answer maps an error to status, body and Retry-After. An unknown error is undecided:
// the client learns only that it may retry.
func (s *Server) answer(err error) (status int, body wire.ErrorResponse, retryAfter time.Duration) {
	var (
		refusal     *discharger.Refusal
		unavailable *discharger.UnavailableError
		invalid     requestError
		tooLarge    *http.MaxBytesError
		routing     *echo.HTTPError
	)
	say := func(status int, code, message string) (int, wire.ErrorResponse, time.Duration) {
		return status, wire.ErrorResponse{Code: code, Message: message}, retryAfter
	}
	switch {
	case errors.As(err, &refusal):
		body = wire.ErrorResponse{
			Code: wire.CodePermissionDenied, Message: refusal.Message,
			Info: &wire.RefusalInfo{Reason: string(refusal.Reason), Ended: refusal.Ended},
		}
		if refusal.Ended {
			body.Info.SoftLogout = &refusal.SoftLogout
		}
		if body.Message == "" {
			body.Message = cmp.Or(sentences[refusal.Reason], "the policy of this service does not allow it")
		}
		return http.StatusUnauthorized, body, 0
	case errors.Is(err, errUnauthorized):
		return say(http.StatusUnauthorized, wire.CodeUnauthorized, errUnauthorized.Error())
	case errors.As(err, &invalid):
		return say(http.StatusBadRequest, wire.CodeBadRequest, invalid.Error())
	case errors.As(err, &tooLarge):
		return say(http.StatusRequestEntityTooLarge, wire.CodeTooLarge, "the request is too large")
	case errors.Is(err, discharger.ErrBadRequest) && errors.Is(err, caveat.ErrMalformed):
		return say(http.StatusBadRequest, wire.CodeBadRequest, "the caveat is malformed")
	case errors.Is(err, discharger.ErrBadRequest):
		return say(http.StatusBadRequest, wire.CodeBadRequest, "the request is malformed")
	case errors.As(err, &routing) && routing.Code == http.StatusNotFound:
		return say(http.StatusNotFound, wire.CodeNotFound, "there is nothing at this path")
	case errors.As(err, &routing) && routing.Code == http.StatusMethodNotAllowed:
		return say(http.StatusMethodNotAllowed, wire.CodeMethodNotAllowed, "this path has another method")
	}
	// Spread over two seconds, so that rejected clients do not return at once.
	retryAfter = time.Second + time.Duration(rand.Int64N(int64(2*time.Second)))
	if errors.As(err, &unavailable) && unavailable.RetryAfter > 0 {
		retryAfter = unavailable.RetryAfter
	}
	return say(http.StatusServiceUnavailable, wire.CodeUnavailable, undecidedText(err))
}

// fail answers every error.
func (s *Server) fail(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	status, body, retryAfter := s.answer(err)
	if over := new(overLimit); errors.As(err, &over) {
		s.cfg.Metrics.shed.WithLabelValues(string(over.limit)).Inc()
	}
	if errors.Is(err, errUnknownAPIKey) {
		s.noteUnknownKey(c)
	}
	if v := visitOf(c); failed(status, &body, v) {
		if wait := s.failures.note(v.offender()); wait > 0 {
			status, retryAfter = http.StatusTooManyRequests, wait
			body = wire.ErrorResponse{Code: wire.CodeTooManyRequests, Message: "too many failed requests from this address"}
		}
	}
	if retryAfter > 0 {
		seconds := int64((retryAfter + time.Second - 1) / time.Second)
		c.Response().Header().Set(wire.HeaderRetryAfter, strconv.FormatInt(seconds, 10))
	}
	if err := c.JSON(status, body); err != nil {
		s.cfg.Log.LogAttrs(c.Request().Context(), slog.LevelDebug, "answer could not be written", slog.Any("error", err))
	}
}

// failed reports whether an answer counts as a failure of its client. The end of a
// session is not a failure of the homeserver that requested it, which must get that
// answer.
func failed(status int, body *wire.ErrorResponse, v *visit) bool {
	switch status {
	case http.StatusBadRequest:
		return true
	case http.StatusUnauthorized:
		return v.homeserver == "" || body.Info == nil || !body.Info.Ended
	}
	return false
}

// noteUnknownKey counts a request with an unknown API key, and logs at most one of
// them a second: they are easily made up.
func (s *Server) noteUnknownKey(c echo.Context) {
	s.cfg.Metrics.unknown.WithLabelValues("api").Inc()
	s.unknownKeys.Do(func() {
		s.cfg.Log.LogAttrs(c.Request().Context(), slog.LevelWarn, "unknown key, request answered 503",
			slog.String("kind", "api"), slog.String("path", c.Path()), slog.String("from", visitOf(c).from()))
	})
}

// undecidedText distinguishes keys that are not in the ring from other causes, for
// the setup of a service. Which keys are registered is no secret.
func undecidedText(err error) string {
	switch {
	case errors.Is(err, errUnknownAPIKey):
		return "this API key is not known to this process"
	case errors.Is(err, caveat.ErrNotOurs):
		return "the caveat is addressed to a key that is not known to this process"
	case errors.Is(err, caveat.ErrUnknownHomeserver):
		return "the caveat was made with a homeserver's key that is not known to this process"
	case errors.Is(err, discharger.ErrUnknownKey):
		return "the refresh token is signed with a key that is not known to this process"
	}
	return "this cannot be decided now; try again"
}

// sentences are the texts of the reasons that are not a policy's, for people.
var sentences = map[session.Reason]string{
	session.ReasonSessionEnded:       "this session has ended: log in again",
	session.ReasonSessionExpired:     "this session has expired: log in again",
	session.ReasonSessionLost:        "the service lost the data of this session: log in again",
	session.ReasonReplaced:           "a newer login on the same device replaced this session",
	session.ReasonTokenRequired:      "this session is refreshed with a refresh token",
	session.ReasonTokenInvalid:       "the refresh token is not valid for this session, now and from here",
	session.ReasonTokenSuperseded:    "a newer refresh token of this session is in use",
	session.ReasonTokenReused:        "the refresh token was used by two parties, so the session was ended: log in again",
	session.ReasonHomeserverRequired: "only the homeserver may do this for this session",
}
