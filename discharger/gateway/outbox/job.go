package outbox

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/wire"
)

// Job is a revocation of sessions at the service. The homeserver has ended their
// tokens already.
type Job struct {
	Op      operation        `json:"op"`
	User    string           `json:"user"`
	Device  string           `json:"device,omitempty"`
	Session caveat.SessionID `json:"session"`         // of EndSession: the session; otherwise one that is not revoked
	Every   bool             `json:"every,omitempty"` // of EndUser: also sessions without a device
	At      int64            `json:"at,omitempty"`    // when the homeserver ended the tokens, Unix ms; 0: unknown
	// Known are revoked sessions of this gateway. They are revoked in any case, and
	// others only if they began before At.
	Known []caveat.SessionID `json:"known,omitempty"`
}

type operation string

// The operations of a [Job].
const (
	EndSession operation = "session"
	EndDevice  operation = "device"
	EndUser    operation = "user"
	endOlder   operation = "older" // of an earlier version; the service does it by itself now
)

// Revoke ends sessions locally and at the service. If the service does not decide, the
// job is kept.
func (b *Outbox) Revoke(ctx context.Context, j Job) {
	j.At = b.cfg.Clock().UnixMilli()
	if gone := b.EndLocally(ctx, j); j.Op != EndSession {
		j.Known = gone
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.cfg.Timeouts.Service)
	defer cancel()
	if err := b.send(ctx, j, 0); err != nil {
		b.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "revocation at the service failed, retrying", slog.Any("error", err))
		b.Keep(ctx, j)
	}
}

// Keep adds a job to the file.
func (b *Outbox) Keep(ctx context.Context, j Job) {
	if err := b.Store.putJob(j); err != nil {
		b.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot record revocation job", slog.Any("error", err))
		return
	}
	for _, id := range j.sessions() {
		e, dead := b.Ends.Get(id)
		if !dead {
			e = End{Cause: revocation.CauseLogout}
		}
		b.Ends.hold(id, e)
	}
	b.Wake()
}

// sessions returns the revoked sessions that a job names.
func (j *Job) sessions() []caveat.SessionID {
	if j.Op == EndSession {
		return []caveat.SessionID{j.Session}
	}
	return j.Known
}

// recall loads the ends in the file. The service may not have them yet, and
// discharges of these sessions may not have expired.
func (b *Outbox) recall() error {
	unsent, condemned, err := b.Store.ended()
	for _, id := range unsent {
		b.Ends.hold(id, End{Cause: revocation.CauseLogout, Settled: true})
	}
	for _, id := range condemned {
		b.Ends.Put(id, End{Cause: revocation.CauseLogout, Settled: true})
	}
	return err
}

// EndLocally removes the sessions of a job from the file, since the homeserver has
// deleted their devices, and returns the sessions that ended by it. The end of a
// session that had ended before does not change.
func (b *Outbox) EndLocally(ctx context.Context, j Job) []caveat.SessionID {
	gone, err := b.Store.forget(j)
	if err != nil {
		b.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot remove sessions from the outbox", slog.Any("error", err))
	}
	ended := gone[:0]
	for _, id := range gone {
		if _, dead := b.Ends.Get(id); dead {
			continue
		}
		ended = append(ended, id)
		b.Ends.Put(id, End{Cause: revocation.CauseLogout, Settled: true})
		b.cfg.OnEnd(id)
	}
	if len(ended) > 0 {
		b.cfg.OnChange()
	}
	return ended
}

// send sends a job to the service; it may be sent twice. With an age, it revokes only
// sessions that are Known or have begun before: since then, the user may have logged in
// through another gateway.
func (b *Outbox) send(ctx context.Context, j Job, age time.Duration) (err error) {
	defer func() { b.cfg.ObserveRevocation(err) }()
	if age > 0 {
		for _, id := range j.Known {
			if _, err := b.cfg.Client.RevokeSession(ctx, j.User, id, wire.RevokeOptions{}); err != nil {
				return err
			}
		}
	}
	switch j.Op {
	case EndSession:
		_, err = b.cfg.Client.RevokeSession(ctx, j.User, j.Session, wire.RevokeOptions{})
	case EndDevice:
		_, err = b.cfg.Client.RevokeDevice(ctx, j.User, j.Device, wire.RevokeOptions{Except: j.Session, Age: age})
	case EndUser:
		_, err = b.cfg.Client.RevokeUser(ctx, j.User, wire.RevokeOptions{Except: j.Session, Devices: !j.Every, Age: age})
	}
	if err == nil && len(j.Known) > 0 {
		b.learnEnds(ctx, j.User, j.Known)
	}
	return err
}

// maxJobAge is within the service's bound.
const maxJobAge = 365 * 24 * time.Hour

// age returns the time since the homeserver ended the tokens, by this machine's clock; 0:
// unknown. If the clock was set, it returns maxJobAge: a session that is not revoked
// would be live with a token that is dead at the homeserver.
func (b *Outbox) age(j Job) time.Duration {
	if j.At == 0 {
		return 0
	}
	age := b.cfg.Clock().Sub(time.UnixMilli(j.At)) + time.Millisecond
	if age <= 0 || age > maxJobAge {
		return maxJobAge
	}
	return age
}

// FlushUser sends the jobs of one user. It precedes the user's next session, which an
// older job must not end.
func (b *Outbox) FlushUser(ctx context.Context, user string) error {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeouts.Service)
	defer cancel()
	return b.flushJobs(ctx, user)
}

// flushJobs sends the jobs of a user; "": of all users.
func (b *Outbox) flushJobs(ctx context.Context, user string) error {
	for {
		if more, err := b.flushJob(ctx, user); err != nil || !more {
			return err
		}
	}
}

// flushJob sends the oldest job of a user; "": of any user. It reports false if there
// is none.
func (b *Outbox) flushJob(ctx context.Context, user string) (bool, error) {
	select {
	case b.sending <- struct{}{}:
		defer func() { <-b.sending }()
	case <-ctx.Done():
		return false, &client.UnavailableError{Err: ctx.Err()}
	}
	key, j, err := b.Store.firstJob(user)
	if err != nil || key == nil {
		return false, err
	}
	var bad *client.BadRequestError
	var refused *client.RefusedError
	if err := b.send(ctx, j, b.age(j)); errors.As(err, &bad) && bad.Code == wire.CodeBadRequest || errors.As(err, &refused) {
		b.cfg.Log.LogAttrs(ctx, slog.LevelError, "revocation rejected by the service, dropping", slog.Any("error", err))
	} else if err != nil {
		return false, err
	}
	b.Ends.sent(j.sessions()...)
	return true, b.Store.jobDone(key)
}
