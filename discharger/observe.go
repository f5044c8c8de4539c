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

// Observer observes answered requests. It is called concurrently and must not
// block.
type Observer interface {
	Observe(ctx context.Context, o Observation)
}

// Op is a method of the service.
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

// The classes, which are those of the errors of [Service].
const (
	ResultOK          Result = "ok"
	ResultRefused     Result = "refused"
	ResultBadRequest  Result = "bad_request"
	ResultUnavailable Result = "unavailable"
)

// KeyKind is a kind of key.
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
	Rule       string // of the policy, if it was evaluated
	PolicyHash string
	Retries    int           // swaps lost to other requests
	Deferred   bool          // a policy decided to defer
	FutureMark bool          // undecided because of a revocation mark in the future
	UnknownKey KeyKind       // with ResultUnavailable: this key is not in the ring; empty: another reason
	LostWrite  bool          // a refresh token showed that the store lost a write
	Ended      bool          // with ResultRefused: the session is over
	SoftLogout bool          // with Ended
	Took       time.Duration // by the service's clock
}

type unobserved struct{}

func (unobserved) Observe(context.Context, Observation) {}

// finish reports an operation to the observer, and returns its error.
func (s *Service) finish(ctx context.Context, op *operation, err error) error {
	s.result(ctx, op, err)
	s.cfg.Observer.Observe(ctx, op.obs)
	return err
}

// finishClient is finish, and logs a refresh token that was used twice.
func (s *Service) finishClient(ctx context.Context, c *clientOp, err error) error {
	s.result(ctx, &c.operation, err)
	if o := &c.obs; o.Replay == policy.ReplayFork || o.Replay == policy.ReplayReuse {
		text := "replaced refresh token was presented"
		if o.Ended && o.Reason == session.ReasonTokenReused {
			text = "session ended: two parties presented its refresh tokens"
		}
		s.cfg.Log.LogAttrs(ctx, slog.LevelWarn, text, c.attrs(
			slog.String("user", c.cond.User), slog.String("device", c.cond.Device),
			slog.String("replay", string(o.Replay)), slog.String("result", string(o.Result)),
			slog.String("reason", string(o.Reason)), slog.String("from", addrText(c.event.From.Addr)))...)
	}
	s.cfg.Observer.Observe(ctx, c.obs)
	return err
}

// result completes the observation of an operation, and logs an undecided one.
func (s *Service) result(ctx context.Context, op *operation, err error) {
	op.obs.Took = s.now().Sub(op.now)
	var r *Refusal
	switch {
	case err == nil:
		op.obs.Result = ResultOK
	case errors.As(err, &r):
		op.obs.Result, op.obs.Reason, op.obs.Ended, op.obs.SoftLogout = ResultRefused, r.Reason, r.Ended, r.SoftLogout
	case errors.Is(err, ErrBadRequest):
		op.obs.Result = ResultBadRequest
	default:
		op.obs.Result = ResultUnavailable
		s.logUndecided(ctx, op, err)
	}
}

// logUndecided logs why a request was not decided. Any client can send a caveat or a
// token with any key id, so unknown keys are logged at most once a second per
// kind; every one is observed.
func (s *Service) logUndecided(ctx context.Context, op *operation, err error) {
	attrs := op.attrs(slog.String("op", string(op.obs.Op)), slog.Any("error", err))
	if unknown := new(unknownKeyError); errors.As(err, &unknown) {
		op.obs.UnknownKey = unknown.kind
		s.unknown[unknown.kind].Do(func() {
			s.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "unknown key, request answered 503", append(attrs, slog.String("kind", string(unknown.kind)))...)
		})
		return
	}
	level := slog.LevelError
	if op.obs.Deferred {
		level = slog.LevelInfo
	}
	s.cfg.Log.LogAttrs(ctx, level, "request not decided, answered 503", attrs...)
}

// newUnknown returns the limits of log lines about unknown keys of each kind.
func newUnknown() map[KeyKind]*rate.Sometimes {
	limits := make(map[KeyKind]*rate.Sometimes)
	for _, kind := range []KeyKind{KeyDischarger, KeyHomeserver, KeyRefresh} {
		limits[kind] = &rate.Sometimes{Interval: time.Second}
	}
	return limits
}
