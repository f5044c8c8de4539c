package gateway

import (
	"context"
	"fmt"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// Several gateways may stand before one homeserver, and a user's requests come
// through any of them, at the same time too. What one of them tells the service
// must not end a session that began through another after the homeserver did
// what it is told for.
//
// A login on a device ends what the device had. Which login was the last, only
// the homeserver knows: the gateways, each with its answer, may come to the
// service in any order, and their clocks differ. So each asks the service what
// there is on the device, and after that the homeserver whether its own token is
// alive. If it is, no login came later until then, and what was there is from
// before: that ends. If it is not, its own session ends, and the rest is the
// business of whoever came later. Whatever the order, the session that is left
// is the one whose token is alive.
//
// What the service could not be told at once is told later, and the user may
// have logged in through another gateway in the meantime. So then it is told to
// end the sessions that began before, one by one: those of this gateway's, which
// are known, and others by their time. Where clocks differ by more than the time
// between, that is wrong; what is left over by mistake has no token at the
// homeserver, and ends when it is used.

// tellOlder ends what was on a session's device before it.
func (g *Gateway) tellOlder(ctx context.Context, o order) error {
	older, err := g.others(ctx, o)
	if err != nil || len(older) == 0 {
		return err
	}
	box, err := g.vault.box(o.Session)
	if err != nil || box == nil {
		return err // it is over itself
	}
	token, err := g.sealer.openUpstream(o.Session, box)
	if err != nil {
		return nil // its key is gone, and with it whoever could use it
	}
	known, soft, err := g.knownUpstream(ctx, token)
	switch {
	case err != nil:
		return fmt.Errorf("ask the homeserver about a token: %w", err)
	case soft:
		return nil // it has run out, and says nothing about others
	case !known:
		older = []caveat.SessionID{o.Session}
	}
	return g.tellEach(ctx, o.User, older)
}

// others are the sessions of a user at the service that are on the device of an
// order, if it names one, but for the one that it excepts.
func (g *Gateway) others(ctx context.Context, o order) (ids []caveat.SessionID, err error) {
	live, err := g.once.Sessions(ctx, o.User)
	if err != nil {
		return nil, err
	}
	for _, s := range live {
		if s.ID == o.Session || o.Op != endUser && s.Device != o.Device {
			continue
		}
		// The service knows the second in which a session began.
		if o.Op != endOlder && !s.Created.Before(time.UnixMilli(o.At).Truncate(time.Second)) {
			continue
		}
		ids = append(ids, s.ID)
	}
	return ids, nil
}

// tellEach ends sessions of a user, here and at the service.
func (g *Gateway) tellEach(ctx context.Context, user string, ids []caveat.SessionID) error {
	for _, id := range ids {
		g.endHere(ctx, order{Op: endSession, User: user, Session: id})
		if err := g.once.RevokeSession(ctx, user, id); err != nil {
			return err
		}
	}
	return nil
}

// tellLate tells the service an order that was kept. Of many sessions, only
// those end that had begun when the homeserver ended them.
func (g *Gateway) tellLate(ctx context.Context, o order) error {
	if o.At == 0 || o.Op == endSession || o.Op == endOlder {
		return g.tell(ctx, o)
	}
	ids, err := g.others(ctx, o)
	if err == nil {
		err = g.tellEach(ctx, o.User, append(ids, o.Known...))
	}
	g.metrics.orders.WithLabelValues(resultOf(err)).Inc()
	return err
}
