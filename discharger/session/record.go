package session

import (
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// Record is what the service remembers of one session. Times are Unix
// milliseconds; Created and LastUsed are kept to the second.
//
// An ended record (End.At > 0) is a tombstone: of the rest only Device and
// Confirmed.Epoch are kept.
type Record struct {
	Mode    caveat.Mode
	Created int64          // first discharge
	End     revocation.End // how the session ended, End.At kept to the second; zero: it lives

	UserGeneration       uint64 // the user's generation when the session was activated
	HomeserverGeneration uint64 // likewise the homeserver's

	Device   string            // as in the condition
	Policy   string            // as in the condition
	Labels   map[string]string // stored by a policy; the condition's own are not repeated here
	LastUsed int64             // last discharge; throttled in modes open and held
	First    Party             // who activated the session
	Last     Party             // who used it last

	// In mode rotate: the refresh token that is known to have arrived, and
	// the newest one that was handed out in exchange for it. Epoch 0 is
	// activation, for which no token exists. Every token of the successor's
	// epoch is unused, and the first one that is used confirms itself.
	Confirmed Confirmed
	Successor *Successor // nil: none was handed out
}

// Over reports whether the session has ended.
func (r *Record) Over() bool { return r.End.At > 0 }

// known is the latest time in the record but for LastUsed, which is near it.
func (r *Record) known() int64 {
	switch {
	case r.Successor != nil:
		return r.Successor.IssuedAt
	case r.Mode == caveat.ModeRotate:
		return r.Confirmed.At
	}
	return r.Created
}

// lastUse is when the session was used last, as precisely as the record says:
// in mode rotate to the millisecond.
func (r *Record) LastUse() int64 { return max(r.LastUsed, r.known()) }

// used returns a copy of the record, used now by the event's party.
func (r *Record) used(e *Event) *Record {
	next := *r
	next.LastUsed = max(r.LastUsed, e.Now/1000*1000)
	next.Last = e.From.cut()
	return &next
}

// ended returns the tombstone of the record.
func (r *Record) Tombstone(end revocation.End) *Record {
	end.At = max(end.At, 1000) / 1000 * 1000
	return &Record{End: end, Device: r.Device, Confirmed: Confirmed{Epoch: r.Confirmed.Epoch}}
}

// newestEpoch returns the epoch of the newest token that was handed out.
func (r *Record) NewestEpoch() uint64 {
	if r.Successor != nil {
		return r.Confirmed.Epoch + 1
	}
	return r.Confirmed.Epoch
}
