package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/wire"
)

// raceWindow is the age up to which a session may have lost a race of logins on its
// device.
//
// A homeserver that allows one token per device ends the older token at a login, and
// answers as for a deleted device, although device and keys are still there. If such
// an answer has no soft_logout, two sessions ended softly: one younger than raceWindow,
// and one whose device had a login through this process since. For other sessions, the
// service's state is requested again after Timeouts.Race, in which a login through
// another gateway reaches the service.
const raceWindow = 2 * time.Minute

// EndUnknown ends a session whose token is unknown at the homeserver, and returns how
// it ended: as the service recorded it before, for example for a newer login on the
// device, or otherwise as in the homeserver's answer. It logs out no device.
func (b *Outbox) EndUnknown(ctx context.Context, id homeserver.Identity, v upstream.Verdict) (End, error) {
	if e, dead := b.Ends.Get(id.Session); dead {
		return e, nil
	}
	s, err := b.State(ctx, id.User, id.Device, id.Session)
	if err == nil && s.Live && v.Silent && id.Device != "" {
		if v.Soft = b.racing(id); !v.Soft && sleep(ctx, b.cfg.Timeouts.Race) {
			s, err = b.State(ctx, id.User, id.Device, id.Session)
		}
	}
	if err != nil {
		return End{}, err
	}
	if s.Live {
		out, err := b.cfg.Client.RevokeSession(ctx, id.User, id.Session, wire.RevokeOptions{Soft: v.Soft})
		b.cfg.ObserveRevocation(err)
		switch {
		case err != nil:
			return End{}, err
		case out.Ended > 0:
			e := End{Soft: v.Soft, Cause: revocation.CauseRevoked, message: "the homeserver has ended it"}
			if v.Soft && !v.Silent {
				e.message = "it has expired at the homeserver"
			}
			b.forgetUnknown(ctx, id, e)
			return e, nil
		}
		if s, err = b.State(ctx, id.User, id.Device, id.Session); err != nil {
			return End{}, err
		}
		if s.Live {
			return End{}, &client.UnavailableError{Err: errors.New("session is live after its revocation")}
		}
	}
	b.forgetUnknown(ctx, id, s.Ended())
	return s.Ended(), nil
}

// racing reports whether a login on its device may have ended a session's token.
func (b *Outbox) racing(id homeserver.Identity) bool {
	at, ok := b.logins.Get(admission.Device(id.User, id.Device))
	return ok && at.After(id.Minted) || b.cfg.Clock().Sub(id.Minted) < raceWindow
}

// forgetUnknown records the end of a session whose token is unknown at the homeserver.
func (b *Outbox) forgetUnknown(ctx context.Context, id homeserver.Identity, e End) {
	e.Settled = true
	b.Ends.Put(id.Session, e)
	b.EndLocally(ctx, Job{Op: EndSession, User: id.User, Session: id.Session})
	b.cfg.OnEnd(id.Session)
}

// NoteLogin records that a login on a device came through this gateway.
func (b *Outbox) NoteLogin(user, device string) {
	b.logins.Put(admission.Device(user, device), b.cfg.Clock().Truncate(time.Millisecond))
}
