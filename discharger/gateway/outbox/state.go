package outbox

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/wire"
)

// End is how a session ended.
type End struct {
	Soft    bool
	Cause   revocation.Cause // or one of the Reason constants of package wire; empty: unknown
	message string           // for people; empty: unknown
	at      int64            // Unix ms, by the service's clock; 0: unknown
	Settled bool             // after a hard end: the logout at the homeserver is in the file, or not needed
}

// Refusal returns the refusal of a request of the session.
func (e End) Refusal() *client.RefusedError {
	return &client.RefusedError{
		Reason: cmp.Or(string(e.Cause), wire.ReasonSessionEnded), Ended: true, SoftLogout: e.Soft,
		Message: cmp.Or(e.message, endSentence(e.Cause)),
	}
}

// endSentence returns a sentence for people about the cause of an end.
func endSentence(cause revocation.Cause) string {
	switch cause {
	case revocation.CauseReplaced:
		return "there was a newer login on the same device"
	case revocation.CauseExpired, wire.ReasonSessionExpired:
		return "it has expired"
	case revocation.CauseReuse, wire.ReasonTokenReused:
		return "its refresh token was used by two parties"
	case revocation.CauseLogout:
		return "logged out"
	case revocation.CauseLost, wire.ReasonSessionLost:
		return "its data was lost"
	case revocation.CauseRevoked:
		return "revoked"
	}
	return "log in again"
}

// FromRefusal returns the end in a refusal of the service.
func FromRefusal(r *client.RefusedError) End {
	return End{Soft: r.SoftLogout, Cause: revocation.Cause(r.Reason), message: r.Message}
}

// Replaced reports whether a session ended by a newer login on its device.
func (e End) Replaced() bool { return e.Soft && e.Cause == revocation.CauseReplaced }

// Expired reports whether a session ended because of its age or idleness.
func (e End) Expired() bool {
	return e.Soft && (e.Cause == revocation.CauseExpired || e.Cause == wire.ReasonSessionExpired)
}

// State is a session's state at the service.
type State struct {
	Live   bool
	Epoch  uint64 // of a live session in mode rotate: the confirmed one
	End    *End   // of one that is not live; nil: no record
	Others bool   // another session has the device: it is live, or ended softly after this one
}

// Ended returns how a session that is not live ended; without a record, softly.
func (s State) Ended() End {
	if s.End == nil {
		return End{Soft: true}
	}
	return *s.End
}

// State requests the state of a session and its device from the service.
func (b *Outbox) State(ctx context.Context, user, device string, id caveat.SessionID) (State, error) {
	var out State
	live, err := b.cfg.Client.Sessions(ctx, user)
	if err != nil {
		return State{}, err
	}
	for _, s := range live {
		switch {
		case s.ID == id:
			out.Live, out.Epoch = true, s.Epoch
		case device != "" && s.Device == device:
			out.Others = true
		}
	}
	if out.Live {
		return out, nil
	}
	ended, err := b.cfg.Client.EndedSessions(ctx, user)
	if err != nil {
		return State{}, err
	}
	at := slices.IndexFunc(ended, func(s wire.EndedSession) bool { return s.ID == id })
	if at < 0 {
		return out, nil
	}
	e := fromRecord(ended[at])
	out.End = &e
	out.Others = out.Others || device != "" && slices.ContainsFunc(ended, func(s wire.EndedSession) bool {
		return s.ID != id && s.Device == device && s.Kind != wire.KindHard && s.At.UnixMilli() > e.at
	})
	return out, nil
}

func fromRecord(s wire.EndedSession) End {
	return End{Soft: s.Kind != wire.KindHard, Cause: revocation.Cause(s.Reason), at: s.At.UnixMilli()}
}

// vouchedLife is how long a session counts as live after the service's answer, against
// a revocation in the feed. The clock was wrong when such a session was minted.
const vouchedLife = time.Minute

// vouch is an answer of the service that a session is live. A later revocation of more
// than one session makes it void; one of the session itself is in [Ends].
type vouch struct {
	until  time.Time
	events uint64 // revocations received before the request
}

// Over returns a refusal if a session has ended. At the first event of the feed about
// it, it requests the session's state from the service, so that all gateways answer
// alike. If the service does not answer, the kind in the feed counts.
func (b *Outbox) Over(ctx context.Context, id homeserver.Identity) error {
	if e, dead := b.Ends.Get(id.Session); dead {
		return e.Refusal()
	}
	soft, revoked := b.cfg.Revoked(id)
	if !revoked {
		return nil
	}
	now := b.cfg.Clock()
	events := b.events.Load() // before the request
	if v, ok := b.vouched.Get(id.Session); ok && now.Before(v.until) && v.events == events {
		return nil
	}
	s, err := b.State(ctx, id.User, id.Device, id.Session)
	switch {
	case err != nil:
		return End{Soft: soft}.Refusal()
	case s.Live:
		b.vouched.Put(id.Session, vouch{until: b.cfg.Clock().Add(vouchedLife), events: events})
		return nil
	}
	e := End{Soft: soft}
	if s.End != nil {
		e = *s.End
	}
	b.NoteEnd(ctx, id, e)
	return e.Refusal()
}

// NoteEnd records how a session ended at the service. After a hard end it adds a
// pending logout; after a soft end the device stays until ForgetAfter.
func (b *Outbox) NoteEnd(ctx context.Context, id homeserver.Identity, e End) {
	known, dead := b.Ends.Get(id.Session)
	if dead && (known.Soft || known.Settled) {
		return
	}
	if dead {
		e = known
	}
	e.Settled = true
	b.Ends.Put(id.Session, e)
	b.cfg.OnEnd(id.Session)
	var err error
	_, gone := b.gone.Get(id.Session)
	switch {
	case gone:
	case e.Soft:
		err = b.Store.endSoftly(id.Session, e)
	case id.Payload != "":
		err = b.Store.AddLogout(id.Session, PendingLogout{Box: []byte(id.Payload), User: id.User, Device: id.Device, Named: true, Hard: true})
		b.Wake()
	}
	if err != nil {
		b.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot record end of session", slog.Any("error", err))
	}
}

// Revoked applies a revocation from the feed. After a hard end, devices are logged out
// at the homeserver, so that they receive no more keys; after a soft end they stay.
// Sessions whose devices the homeserver has deleted are not in the file any more.
func (b *Outbox) Revoked(r revocation.Event) {
	ctx := context.Background()
	if r.Session == (caveat.SessionID{}) {
		b.events.Add(1)
	}
	ids, err := b.Store.revoke(r)
	if _, dead := b.Ends.Get(r.Session); !dead && r.Session != (caveat.SessionID{}) {
		b.Ends.Put(r.Session, End{Soft: r.Soft, Cause: r.Reason, at: r.At.UnixMilli(), Settled: len(ids) > 0})
		b.cfg.OnEnd(r.Session)
	}
	b.cfg.OnChange()
	if err != nil {
		b.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot record revocation", slog.Any("error", err))
	}
	if len(ids) > 0 {
		b.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "logging out devices of revoked sessions",
			slog.Int("sessions", len(ids)), slog.String("reason", string(r.Reason)))
		b.Wake()
	}
}

// Missed starts a pass of reconciling, since revocations may have been missed.
func (b *Outbox) Missed() { signal(b.gap) }
