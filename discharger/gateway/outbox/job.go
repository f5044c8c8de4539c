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

// Job is an end of sessions that the service is to carry out. The homeserver
// has ended their tokens already.
type Job struct {
	Op      operation        `json:"op"`
	User    string           `json:"user"`
	Device  string           `json:"device,omitempty"`
	Session caveat.SessionID `json:"session"`         // the one that ends; of the others, the one to leave alone
	Every   bool             `json:"every,omitempty"` // of a user: sessions without a device too
	At      int64            `json:"at,omitempty"`    // when the homeserver ended them, Unix ms; 0: it is not known
	// Known are sessions of this gateway's that are meant, whenever they began by
	// the service's clock.
	Known []caveat.SessionID `json:"known,omitempty"`
}

type operation string

const (
	EndSession operation = "session"
	EndDevice  operation = "device"
	EndUser    operation = "user"
	endOlder   operation = "older" // of an earlier version: now the service does it by itself
)

// Revoke carries out an order: here at once, and at the service as soon as it can
// be reached.
func (b *Outbox) Revoke(ctx context.Context, o Job) {
	o.At = b.cfg.Clock().UnixMilli()
	if gone := b.EndLocally(ctx, o); o.Op != EndSession {
		o.Known = gone
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.cfg.Timeouts.Service)
	defer cancel()
	err := b.send(ctx, o)
	if err == nil {
		if len(o.Known) > 0 {
			b.LearnEnds(ctx, o.User, o.Known)
		}
		return
	}
	b.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "revocation at the service failed, keeping it for later", slog.Any("error", err))
	b.Keep(ctx, o)
}

// Keep keeps an order for later.
func (b *Outbox) Keep(ctx context.Context, o Job) {
	if err := b.Store.PutJob(o); err != nil {
		b.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot record revocation job", slog.Any("error", err))
		return
	}
	for _, id := range o.sessions() {
		e, dead := b.Ends.Get(id)
		if !dead {
			e = End{Reason: string(revocation.CauseLogout)}
		}
		b.Ends.hold(id, e)
	}
	b.Wake()
}

// sessions returns the sessions that an order names and ends.
func (o *Job) sessions() []caveat.SessionID {
	if o.Op == EndSession {
		return []caveat.SessionID{o.Session}
	}
	return o.Known
}

// recall refuses the sessions whose ends an earlier process kept: the service may
// not know of them, and discharges live on.
func (b *Outbox) recall() error {
	unsent, condemned, err := b.Store.ended()
	for _, id := range unsent {
		b.Ends.hold(id, End{Reason: string(revocation.CauseLogout), Settled: true})
	}
	for _, id := range condemned {
		b.Ends.Put(id, End{Reason: string(revocation.CauseLogout), Settled: true})
	}
	return err
}

// EndLocally forgets the sessions of an order whose devices the homeserver has
// deleted, and returns those that it ends. A session that ended before stays as
// it ended.
func (b *Outbox) EndLocally(ctx context.Context, o Job) []caveat.SessionID {
	gone, err := b.Store.forget(o)
	if err != nil {
		b.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot remove sessions from the outbox", slog.Any("error", err))
	}
	ended := gone[:0]
	for _, id := range gone {
		if _, dead := b.Ends.Get(id); dead {
			continue
		}
		ended = append(ended, id)
		b.Ends.Put(id, End{Reason: string(revocation.CauseLogout), Settled: true})
		b.cfg.OnEnd(id)
	}
	if len(ended) > 0 {
		b.cfg.OnChange()
	}
	return ended
}

// send gives an order to the service. It may be sent twice.
func (b *Outbox) send(ctx context.Context, o Job) error {
	err := b.revokeAged(ctx, o, 0)
	b.cfg.ObserveRevocation(err)
	return err
}

// sendLate gives an order to the service that was kept. The user may have logged in
// through another gateway in the meantime: so only sessions end that had begun
// when the homeserver ended them, this gateway's, which are known, and others by
// their age.
func (b *Outbox) sendLate(ctx context.Context, o Job) error {
	if o.Op == EndSession || o.Op == endOlder || o.At == 0 {
		return b.send(ctx, o)
	}
	err := b.revokeKnown(ctx, o)
	if err == nil {
		err = b.revokeAged(ctx, o, b.age(o.At))
	}
	if err == nil && len(o.Known) > 0 {
		b.LearnEnds(ctx, o.User, o.Known)
	}
	b.cfg.ObserveRevocation(err)
	return err
}

func (b *Outbox) revokeKnown(ctx context.Context, o Job) error {
	for _, id := range o.Known {
		if _, err := b.client.RevokeSession(ctx, o.User, id, wire.RevokeOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// maxOrderAge is within the service's bound.
const maxOrderAge = 365 * 24 * time.Hour

// age returns how long ago a time was by this machine's clock, and more than
// that where the clock was set: a session that is taken for too new lives on, and
// its token is dead at the homeserver.
func (b *Outbox) age(at int64) time.Duration {
	age := b.cfg.Clock().Sub(time.UnixMilli(at)) + time.Millisecond
	if age <= 0 || age > maxOrderAge {
		return maxOrderAge
	}
	return age
}

func (b *Outbox) revokeAged(ctx context.Context, o Job, age time.Duration) (err error) {
	switch o.Op {
	case EndSession:
		_, err = b.client.RevokeSession(ctx, o.User, o.Session, wire.RevokeOptions{})
	case EndDevice:
		_, err = b.client.RevokeDevice(ctx, o.User, o.Device, wire.RevokeOptions{Except: o.Session, Age: age})
	case EndUser:
		_, err = b.client.RevokeUser(ctx, o.User, wire.RevokeOptions{Except: o.Session, Devices: !o.Every, Age: age})
	}
	return err
}

// FlushJobs sends the orders that were kept.
func (b *Outbox) FlushJobs(ctx context.Context) error {
	for ctx.Err() == nil {
		if more, err := b.flushJob(ctx, ""); err != nil || !more {
			return err
		}
	}
	return ctx.Err()
}

// Pause keeps kept jobs from being sent until resume is called.
func (b *Outbox) Pause() (resume func()) {
	b.sending <- struct{}{}
	return func() { <-b.sending }
}

// FlushUser does that for one user. It comes before they get a new session,
// which an order from before must not end.
func (b *Outbox) FlushUser(ctx context.Context, user string) error {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeouts.Service)
	defer cancel()
	for {
		if more, err := b.flushJob(ctx, user); err != nil || !more {
			return err
		}
	}
}

// flushJob sends one order, of one user or of any. It reports false if there
// is none.
func (b *Outbox) flushJob(ctx context.Context, user string) (bool, error) {
	select {
	case b.sending <- struct{}{}:
		defer func() { <-b.sending }()
	case <-ctx.Done():
		return false, &client.UnavailableError{Err: ctx.Err()}
	}
	key, o, err := b.Store.FirstJob(user)
	if err != nil || key == nil {
		return false, err
	}
	var bad *client.BadRequestError
	var refused *client.RefusedError
	if err := b.sendLate(ctx, o); errors.As(err, &bad) && bad.Code == wire.CodeBadRequest || errors.As(err, &refused) {
		b.cfg.Log.LogAttrs(ctx, slog.LevelError, "revocation rejected by the service, dropping", slog.Any("error", err))
	} else if err != nil {
		return false, err
	}
	b.Ends.sent(o.sessions()...)
	return true, b.Store.JobDone(key)
}
