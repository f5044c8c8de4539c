package discharger

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/policy"
)

// An Observer is told about every request when it has been answered. It is
// called concurrently and must not block.
type Observer interface {
	Observe(ctx context.Context, o Observation)
}

// Op is what was asked of the service.
type Op string

// The operations.
const (
	OpDischarge Op = "discharge"
	OpLogout    Op = "logout"
	OpLogoutAll Op = "logout_all"
	OpSeen      Op = "seen"
	OpList      Op = "list"
	OpRevoke    Op = "revoke"

	OpRevokeUser       Op = "revoke_user"
	OpRevokeDevice     Op = "revoke_device"
	OpRevokeHomeserver Op = "revoke_homeserver"

	OpOwnSessions Op = "own_sessions"
	OpRevokeOwn   Op = "revoke_own"
	OpLiftMarks   Op = "lift_marks"
)

// Result is the class of an answer.
type Result string

// The classes, as the errors of [Service] tell them apart.
const (
	ResultOK          Result = "ok"
	ResultRefused     Result = "refused"
	ResultBadRequest  Result = "bad_request"
	ResultUnavailable Result = "unavailable"
)

// KeyKind is a kind of key that something may have been made with.
type KeyKind string

// The kinds of keys.
const (
	KeyDischarger KeyKind = "discharger" // of the service: a caveat is sealed to it
	KeyHomeserver KeyKind = "homeserver" // a caveat is sealed with it
	KeyRefresh    KeyKind = "refresh"    // a refresh token is signed with it
)

// Observation is one answered request. It holds nothing secret. Session is
// for logs; the rest comes from small fixed sets but for the homeserver's
// name, which is as many as are configured, and the policy's rule.
type Observation struct {
	Op         Op
	Homeserver string // "" if the caveat could not be opened
	Session    caveat.SessionID
	Mode       caveat.Mode // 0 if the caveat could not be opened
	Result     Result
	Reason     session.Reason // with ResultRefused
	Action     policy.Action
	Replay     policy.Replay
	Rule       string // of the policy, if it was asked
	PolicyHash string
	Retries    int           // lost races with other requests
	Deferred   bool          // a policy decided that it is not yet to be decided
	FutureMark bool          // a revocation mark in the future kept it undecided
	UnknownKey KeyKind       // with ResultUnavailable: this key is not in the ring; "": another reason
	LostWrite  bool          // a refresh token showed that the store lost a write
	Ended      bool          // with ResultRefused: the session is over
	SoftLogout bool          // with Ended
	Took       time.Duration // by the service's clock
}

type nobody struct{}

func (nobody) Observe(context.Context, Observation) {}

// finish reports the attempt and returns its error.
func (s *Service) finish(ctx context.Context, a *attempt, err error) error {
	a.obs.Took = s.cfg.Now().Sub(a.now)
	var r *Refusal
	switch {
	case err == nil:
		a.obs.Result = ResultOK
	case errors.As(err, &r):
		a.obs.Result, a.obs.Reason, a.obs.Ended, a.obs.SoftLogout = ResultRefused, r.Reason, r.Ended, r.SoftLogout
	case errors.Is(err, ErrBadRequest):
		a.obs.Result = ResultBadRequest
	default:
		a.obs.Result = ResultUnavailable
		s.logUndecided(ctx, a, err)
	}
	if a.obs.Replay == policy.ReplayFork || a.obs.Replay == policy.ReplayReuse {
		text := "replaced refresh token was presented"
		if a.obs.Ended && a.obs.Reason == session.ReasonTokenReused {
			text = "session ended: two parties presented its refresh tokens"
		}
		s.cfg.Log.LogAttrs(ctx, slog.LevelWarn, text, a.attrs(
			slog.String("user", a.cond.User), slog.String("device", a.cond.Device),
			slog.String("replay", string(a.obs.Replay)), slog.String("result", string(a.obs.Result)),
			slog.String("reason", string(a.obs.Reason)), slog.String("from", addrText(a.event.From.Addr)))...)
	}
	s.cfg.Observer.Observe(ctx, a.obs)
	return err
}

// logUndecided logs why a request was not decided. Anyone can send a caveat or a
// token with any key id, so unknown keys are logged at most once a second per
// kind; every one is observed.
func (s *Service) logUndecided(ctx context.Context, a *attempt, err error) {
	attrs := a.attrs(slog.String("op", string(a.obs.Op)), slog.Any("error", err))
	if unknown := new(unknownKeyError); errors.As(err, &unknown) {
		a.obs.UnknownKey = unknown.kind
		s.unknown[unknown.kind].Do(func() {
			s.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "unknown key, request answered 503", append(attrs, slog.String("kind", string(unknown.kind)))...)
		})
		return
	}
	level := slog.LevelError
	if a.obs.Deferred {
		level = slog.LevelInfo
	}
	s.cfg.Log.LogAttrs(ctx, level, "request could not be decided", attrs...)
}

// newUnknown returns what limits the log lines about unknown keys of each kind.
func newUnknown() map[KeyKind]*rate.Sometimes {
	limits := make(map[KeyKind]*rate.Sometimes)
	for _, kind := range []KeyKind{KeyDischarger, KeyHomeserver, KeyRefresh} {
		limits[kind] = &rate.Sometimes{Interval: time.Second}
	}
	return limits
}
