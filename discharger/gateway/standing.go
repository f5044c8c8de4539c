package gateway

import (
	"context"
	"log/slog"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/wire"
)

// ending is how a session ended, as the service decided it.
type ending struct {
	soft    bool
	reason  string // one of the Reason or Revoked constants of package api; empty: not known
	message string // for people; empty: not known
	at      int64  // Unix ms, by the service's clock; 0: not known
	settled bool   // after a hard end: the vault has the logout at the homeserver, or none is needed
}

// refused returns the refusal of a session that ended so.
func (e ending) refused() *client.RefusedError {
	r := &client.RefusedError{Reason: e.reason, Ended: true, SoftLogout: e.soft, Message: e.message}
	if r.Reason == "" {
		r.Reason = wire.ReasonSessionEnded
	}
	if r.Message == "" {
		r.Message = endSentence(e.reason)
	}
	return r
}

// endSentence returns a sentence for people about the reason of an end.
func endSentence(reason string) string {
	switch reason {
	case wire.RevokedReplaced:
		return "there was a newer login on the same device"
	case wire.RevokedExpired, wire.ReasonSessionExpired:
		return "it has expired"
	case wire.RevokedReuse, wire.ReasonTokenReused:
		return "its refresh token was used by two parties"
	case wire.RevokedLogout:
		return "logged out"
	case wire.RevokedLost, wire.ReasonSessionLost:
		return "its data was lost"
	case wire.RevokedOrder:
		return "revoked"
	}
	return "log in again"
}

func endingOf(r *client.RefusedError) ending {
	return ending{soft: r.SoftLogout, reason: r.Reason, message: r.Message}
}

// replaced reports whether a session ended by a newer login on its device.
func (e ending) replaced() bool { return e.soft && e.reason == wire.RevokedReplaced }

// overByTime reports whether a session ended because of its age or idleness.
func (e ending) overByTime() bool {
	return e.soft && (e.reason == wire.RevokedExpired || e.reason == wire.ReasonSessionExpired)
}

// standing is a session's state at the service.
type standing struct {
	live   bool
	epoch  uint64  // of a live session in mode rotate: the confirmed one
	end    *ending // of one that is not live; nil: the service remembers none
	others bool    // another session has the device: it lives, or ended softly after this one
}

// ending returns how a session that is not live ended. One without a record
// ended softly.
func (s standing) ending() ending {
	if s.end == nil {
		return ending{soft: true}
	}
	return *s.end
}

// standing asks the service about a session and its device.
func (g *Gateway) standing(ctx context.Context, user, device string, id caveat.SessionID) (standing, error) {
	var out standing
	live, err := g.once.Sessions(ctx, user)
	if err != nil {
		return standing{}, err
	}
	for _, s := range live {
		switch {
		case s.ID == id:
			out.live, out.epoch = true, s.Epoch
		case device != "" && s.Device == device:
			out.others = true
		}
	}
	if out.live {
		return out, nil
	}
	ended, err := g.once.EndedSessions(ctx, user)
	if err != nil {
		return standing{}, err
	}
	for _, s := range ended {
		if s.ID == id {
			e := endingIn(s)
			out.end = &e
		}
	}
	for _, s := range ended {
		e := endingIn(s)
		if s.ID != id && device != "" && s.Device == device && e.soft && out.end != nil && e.at > out.end.at {
			out.others = true
		}
	}
	return out, nil
}

// awaitStanding asks the same, and waits while the service decides nothing.
func (g *Gateway) awaitStanding(ctx context.Context, user, device string, id caveat.SessionID) (standing, error) {
	return pursue(ctx, g, g.waiterFor(exchangeOf(ctx), nil), func(ctx context.Context) (standing, error) {
		return g.standing(ctx, user, device, id)
	})
}

func endingIn(s wire.EndedSession) ending {
	return ending{soft: s.Kind != wire.KindHard, reason: s.Reason, at: s.At.UnixMilli()}
}

// vouchedLife is for how long the service is believed that a session lives which
// the feed has an end of: a clock was wrong when the session was minted.
const vouchedLife = time.Minute

// vouch is the service's word that a session lives. A later revocation of more than
// one session takes it away; one of the session itself is remembered apart.
type vouch struct {
	until  time.Time
	events uint64 // revocations that had been received before the service was asked
}

// over returns a refusal if a session is known to have ended. At the first event
// of the feed about it the service is asked, so that every gateway gives one
// answer; while the service is away, the kind in the feed counts.
func (g *Gateway) over(ctx context.Context, id homeserver.Identity) error {
	if e, dead := g.dead.get(id.Session); dead {
		return e.refused()
	}
	soft, heard := g.feed.RevokedKind(id)
	if !heard {
		return nil
	}
	now := g.cfg.Clock()
	events := g.events.Load()
	if v, ok := g.vouched.get(id.Session); ok && now.Before(v.until) && v.events == events {
		return nil
	}
	s, err := g.standing(ctx, id.User, id.Device, id.Session)
	switch {
	case err != nil:
		return ending{soft: soft}.refused()
	case s.live:
		g.vouched.put(id.Session, vouch{until: now.Add(vouchedLife), events: events})
		return nil
	}
	e := ending{soft: soft}
	if s.end != nil {
		e = *s.end
	}
	g.noteEnd(ctx, id, e)
	return e.refused()
}

// noteEnd remembers how a session ended at the service. After a hard end its
// device is to be logged out at the homeserver, so that it does not go on
// receiving keys; after a soft one the device stays, and the reaper comes.
func (g *Gateway) noteEnd(ctx context.Context, id homeserver.Identity, e ending) {
	known, dead := g.dead.get(id.Session)
	if dead && (known.soft || known.settled) {
		return
	}
	if dead {
		e = known
	}
	e.settled = true
	g.dead.put(id.Session, e)
	g.opened.remove(id.Session)
	g.held.drop(id.Session)
	var err error
	_, gone := g.gone.get(id.Session)
	switch {
	case gone:
	case e.soft:
		err = g.vault.soften(id.Session, e)
	case id.Payload != "":
		err = g.vault.condemn(id.Session, vaultDebt{Box: []byte(id.Payload), User: id.User, Device: id.Device, Named: true, Hard: true})
		g.wake()
	}
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "end of a session cannot be written down", slog.Any("error", err))
	}
}
