package gateway

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/wire"
)

// order is an end of sessions that the service is to carry out. The homeserver
// has ended their tokens already.
type order struct {
	Op      orderOp          `json:"op"`
	User    string           `json:"user"`
	Device  string           `json:"device,omitempty"`
	Session caveat.SessionID `json:"session"`         // the one that ends; of the others, the one to leave alone
	Every   bool             `json:"every,omitempty"` // of a user: sessions without a device too
	At      int64            `json:"at,omitempty"`    // when the homeserver ended them, Unix ms; 0: it is not known
	// Known are sessions of this gateway's that are meant, whenever they began by
	// the service's clock.
	Known []caveat.SessionID `json:"known,omitempty"`
}

type orderOp string

const (
	endSession orderOp = "session"
	endDevice  orderOp = "device"
	endUser    orderOp = "user"
	endOlder   orderOp = "older" // of an earlier version: now the service does it by itself
)

// end carries out an order: here at once, and at the service as soon as it can
// be reached.
func (g *Gateway) end(ctx context.Context, o order) {
	o.At = g.cfg.Clock().UnixMilli()
	if gone := g.endHere(ctx, o); o.Op != endSession {
		o.Known = gone
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.patience.order)
	defer cancel()
	err := g.send(ctx, o)
	if err == nil {
		if len(o.Known) > 0 {
			g.learnEnds(ctx, o.User, o.Known)
		}
		return
	}
	g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "revocation at the service failed, keeping it for later", slog.Any("error", err))
	g.keepOrder(ctx, o)
}

// keepOrder keeps an order for later.
func (g *Gateway) keepOrder(ctx context.Context, o order) {
	if err := g.vault.putOrder(o); err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "revocation cannot be kept for later", slog.Any("error", err))
		return
	}
	for _, id := range o.sessions() {
		e, dead := g.dead.get(id)
		if !dead {
			e = ending{reason: wire.RevokedLogout}
		}
		g.dead.hold(id, e)
	}
	g.wake()
}

// sessions returns the sessions that an order names and ends.
func (o *order) sessions() []caveat.SessionID {
	if o.Op == endSession {
		return []caveat.SessionID{o.Session}
	}
	return o.Known
}

// recall refuses the sessions whose ends an earlier process kept: the service may
// not know of them, and discharges live on.
func (g *Gateway) recall() error {
	unsent, condemned, err := g.vault.ended()
	for _, id := range unsent {
		g.dead.hold(id, ending{reason: wire.RevokedLogout, settled: true})
	}
	for _, id := range condemned {
		g.dead.put(id, ending{reason: wire.RevokedLogout, settled: true})
	}
	return err
}

// endHere forgets the sessions of an order whose devices the homeserver has
// deleted, and returns those that it ends. A session that ended before stays as
// it ended.
func (g *Gateway) endHere(ctx context.Context, o order) []caveat.SessionID {
	gone, err := g.vault.forget(o)
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "sessions cannot be taken out of the vault", slog.Any("error", err))
	}
	ended := gone[:0]
	for _, id := range gone {
		if _, dead := g.dead.get(id); dead {
			continue
		}
		ended = append(ended, id)
		g.dead.put(id, ending{reason: wire.RevokedLogout, settled: true})
		g.held.drop(id)
		g.opened.remove(id)
	}
	if len(ended) > 0 {
		g.link.changed()
	}
	return ended
}

// send gives an order to the service. It may be sent twice.
func (g *Gateway) send(ctx context.Context, o order) error {
	err := g.revokeAged(ctx, o, 0)
	g.metrics.orders.WithLabelValues(resultOf(err)).Inc()
	return err
}

// sendLate gives an order to the service that was kept. The user may have logged in
// through another gateway in the meantime: so only sessions end that had begun
// when the homeserver ended them, this gateway's, which are known, and others by
// their age.
func (g *Gateway) sendLate(ctx context.Context, o order) error {
	if o.Op == endSession || o.Op == endOlder || o.At == 0 {
		return g.send(ctx, o)
	}
	err := g.revokeKnown(ctx, o)
	if err == nil {
		err = g.revokeAged(ctx, o, g.age(o.At))
	}
	if err == nil && len(o.Known) > 0 {
		g.learnEnds(ctx, o.User, o.Known)
	}
	g.metrics.orders.WithLabelValues(resultOf(err)).Inc()
	return err
}

func (g *Gateway) revokeKnown(ctx context.Context, o order) error {
	for _, id := range o.Known {
		if _, err := g.once.RevokeSession(ctx, o.User, id, wire.RevokeOptions{}); err != nil {
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
func (g *Gateway) age(at int64) time.Duration {
	age := g.cfg.Clock().Sub(time.UnixMilli(at)) + time.Millisecond
	if age <= 0 || age > maxOrderAge {
		return maxOrderAge
	}
	return age
}

func (g *Gateway) revokeAged(ctx context.Context, o order, age time.Duration) (err error) {
	switch o.Op {
	case endSession:
		_, err = g.once.RevokeSession(ctx, o.User, o.Session, wire.RevokeOptions{})
	case endDevice:
		_, err = g.once.RevokeDevice(ctx, o.User, o.Device, wire.RevokeOptions{Except: o.Session, Age: age})
	case endUser:
		_, err = g.once.RevokeUser(ctx, o.User, wire.RevokeOptions{Except: o.Session, Devices: !o.Every, Age: age})
	}
	return err
}

// settleOrders sends the orders that were kept.
func (g *Gateway) settleOrders(ctx context.Context) error {
	for ctx.Err() == nil {
		if more, err := g.settleOrder(ctx, ""); err != nil || !more {
			return err
		}
	}
	return ctx.Err()
}

// settleOrdersOf does that for one user. It comes before they get a new session,
// which an order from before must not end.
func (g *Gateway) settleOrdersOf(ctx context.Context, user string) error {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.patience.order)
	defer cancel()
	for {
		if more, err := g.settleOrder(ctx, user); err != nil || !more {
			return err
		}
	}
}

// settleOrder sends one order, of one user or of any. It reports false if there
// is none.
func (g *Gateway) settleOrder(ctx context.Context, user string) (bool, error) {
	select {
	case g.ordering <- struct{}{}:
		defer func() { <-g.ordering }()
	case <-ctx.Done():
		return false, &client.UnavailableError{Err: ctx.Err()}
	}
	key, o, err := g.vault.firstOrder(user)
	if err != nil || key == nil {
		return false, err
	}
	var bad *client.BadRequestError
	var refused *client.RefusedError
	if err := g.sendLate(ctx, o); errors.As(err, &bad) && bad.Code == wire.CodeBadRequest || errors.As(err, &refused) {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "revocation rejected by the service, dropping", slog.Any("error", err))
	} else if err != nil {
		return false, err
	}
	g.dead.sent(o.sessions()...)
	return true, g.vault.sent(key)
}
