package discharger

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/policy"
)

// Observer observes answered requests. It is called concurrently and must not block.
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

// Result is the class of an answer: one per class of errors of [Service].
type Result string

// The results.
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
	KeyDischarger KeyKind = "discharger" // of the service, to which caveats are sealed
	KeyHomeserver KeyKind = "homeserver" // with which caveats are sealed
	KeyRefresh    KeyKind = "refresh"    // with which refresh tokens are signed
)

// Observation is one answered request. It contains no secret. Session is for logs.
// The other strings are from fixed sets, the configured homeservers, or the rules of
// the policy, so they can be labels of metrics.
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
	Deferred   bool          // by the policy
	FutureMark bool          // undecided because of a revocation mark in the future
	UnknownKey KeyKind       // with ResultUnavailable: the kind of the unknown key; empty: another cause
	LostWrite  bool          // the refresh token is newer than the record: the store lost a write
	Ended      bool          // with ResultRefused: the session is over
	SoftLogout bool          // with Ended
	Took       time.Duration // by the service's clock
}

type unobserved struct{}

func (unobserved) Observe(context.Context, Observation) {}

// finishClient does the same as finish, and logs a replayed refresh token.
func (s *Service) finishClient(ctx context.Context, c *clientOp, err error) error {
	err = s.finish(ctx, &c.operation, err)
	if o := &c.obs; o.Replay == policy.ReplayFork || o.Replay == policy.ReplayReuse {
		text := "refresh token replayed, refused"
		if o.Ended && o.Reason == session.ReasonTokenReused {
			text = "refresh token replayed by another party, session ended"
		}
		s.cfg.Log.LogAttrs(ctx, slog.LevelWarn, text, c.attrs(
			slog.String("user", c.cond.User), slog.String("device", c.cond.Device),
			slog.String("replay", string(o.Replay)), slog.String("result", string(o.Result)),
			slog.String("reason", string(o.Reason)), slog.String("from", addrText(c.event.From.Addr)))...)
	}
	return err
}

// finish reports an operation to the observer, logs an undecided one, and returns its
// error.
func (s *Service) finish(ctx context.Context, op *operation, err error) error {
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
	s.cfg.Observer.Observe(ctx, op.obs)
	return err
}

// logUndecided logs the cause of an undecided request. Any client can send a caveat
// or a token with any key id, so unknown keys are logged at most once a second per
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
	s.cfg.Log.LogAttrs(ctx, level, "request undecided, answered 503", attrs...)
}
