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

// A homeserver that allows a device one token kills the older one at a login, and
// answers for it as for a token whose device is deleted. But then the device with
// its keys is still there. So where such an answer has no soft_logout, a session that is as young as racing logins are, and one whose
// device had a login through this process since, ended softly; of any other, the
// service is asked again after a pause in which a login through another gateway
// comes to the service.
const raceWindow = 2 * time.Minute

// EndUnknown ends a session whose token the homeserver does not know any more,
// as the homeserver's answer has it, and returns how it ended. If the service has ended it
// before, for a newer login on its device above all, that is how. Nothing is
// logged out at the homeserver.
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
		out, err := b.client.RevokeSession(ctx, id.User, id.Session, wire.RevokeOptions{Soft: v.Soft})
		b.cfg.ObserveRevocation(err)
		switch {
		case err != nil:
			return End{}, err
		case out.Ended > 0:
			e := End{Soft: v.Soft, Reason: string(revocation.CauseRevoked), message: "the homeserver has ended it"}
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

// racing reports whether a session's token may have been killed by a login on its
// device.
func (b *Outbox) racing(id homeserver.Identity) bool {
	at, ok := b.logins.Get(admission.Device(id.User, id.Device))
	return ok && at.After(id.Minted) || b.cfg.Clock().Sub(id.Minted) < raceWindow
}

// forgetUnknown remembers the end of a session whose token is not known at the
// homeserver, where so nothing is left to be done.
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
