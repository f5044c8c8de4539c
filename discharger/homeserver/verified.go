package homeserver

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// verified is a bundle whose signatures are valid. It is immutable.
type verified struct {
	identity  Identity
	access    time.Time // earliest time-before of the access macaroon; zero: none
	discharge time.Time // and of the discharge
	addresses []address
	others    []other // for Config.Check
	narrowed  bool    // has conditions that a holder may have added
}

// address is a client-ip condition, other is one that this package does not define.
type (
	address struct {
		prefix netip.Prefix
		part   Part
	}
	other struct {
		condition string
		part      Part
	}
)

// newVerified parses the conditions of a bundle. The first of the discharge, and in
// mode rotate the second, are the discharger's; all others may be a holder's.
func newVerified(b *bundle.Bundle, id *identifier) (*verified, error) {
	v := &verified{identity: id.identity()}
	caveats := b.Discharges[0].Caveats
	if len(caveats) == 0 || !v.expires(string(caveats[0].ID)) {
		return nil, &Error{Kind: ErrMalformed, Part: PartDischarge, Err: errors.New("first caveat is not a time-before")}
	}
	caveats = caveats[1:]
	if id.mode == caveat.ModeRotate {
		if len(caveats) == 0 || !v.epoch(string(caveats[0].ID)) {
			return nil, &Error{Kind: ErrMalformed, Part: PartDischarge, Err: errors.New("second caveat is not the epoch")}
		}
		caveats = caveats[1:]
	}
	v.narrowed = len(caveats) > 0 || len(b.Access.Caveats) > 1
	if err := v.narrow(caveats, PartDischarge, &v.discharge); err != nil {
		return nil, err
	}
	if err := v.narrow(b.Access.Caveats[1:], PartAccess, &v.access); err != nil {
		return nil, err
	}
	v.identity.Expires = v.discharge
	if !v.access.IsZero() && v.access.Before(v.discharge) {
		v.identity.Expires = v.access
	}
	return v, nil
}

// expires parses the discharger's time-before.
func (v *verified) expires(condition string) bool {
	name, arg := rawmacaroon.CutCondition(condition)
	if name != rawmacaroon.CondTimeBefore {
		return false
	}
	t, err := rawmacaroon.ParseTimeBefore(arg)
	v.discharge = t.UTC()
	return err == nil
}

// epoch parses the discharger's declaration.
func (v *verified) epoch(condition string) (ok bool) {
	name, arg := rawmacaroon.CutCondition(condition)
	v.identity.Epoch, ok = rawmacaroon.ParseEpoch(arg)
	return ok && name == rawmacaroon.CondDeclared
}

// narrow collects conditions that may be a holder's.
func (v *verified) narrow(caveats []rawmacaroon.Caveat, part Part, earliest *time.Time) error {
	for i := range caveats {
		condition := string(caveats[i].ID)
		name, arg := rawmacaroon.CutCondition(condition)
		var err error
		switch name {
		case rawmacaroon.CondTimeBefore:
			err = sooner(earliest, arg)
		case rawmacaroon.CondClientIP:
			a := address{part: part}
			a.prefix, err = rawmacaroon.ParseClientIP(arg)
			v.addresses = append(v.addresses, a)
		case rawmacaroon.CondDeclared:
			err = errors.New("not declared by the discharger")
		default:
			v.others = append(v.others, other{condition: condition, part: part})
		}
		if err != nil {
			return &Error{Kind: ErrUnknownCaveat, Part: part, Condition: condition, Err: err}
		}
	}
	return nil
}

// sooner sets a time to that of a time-before, if that is earlier. The zero time means
// that there is none, so a time-before of it counts as the moment after it.
func sooner(earliest *time.Time, arg string) error {
	t, err := rawmacaroon.ParseTimeBefore(arg)
	if err != nil {
		return err
	}
	if t = t.UTC(); t.IsZero() {
		t = t.Add(1)
	}
	if earliest.IsZero() || t.Before(*earliest) {
		*earliest = t
	}
	return nil
}

// accessInTime checks the access macaroon's expiry.
func (v *verified) accessInTime(now time.Time) error {
	if !v.access.IsZero() && !now.Before(v.access) {
		return &Error{Kind: ErrExpired, Part: PartAccess, At: v.access}
	}
	return nil
}

// inTime checks both expiries, the access macaroon's first: a refresh does not
// replace it.
func (v *verified) inTime(now time.Time) error {
	if err := v.accessInTime(now); err != nil {
		return err
	}
	if !now.Before(v.discharge) {
		return &Error{Kind: ErrExpired, Part: PartDischarge, At: v.discharge}
	}
	return nil
}

// verifiedBundles caches verified bundles by their text.
//
// The whole text is compared, so that only the verified bundle is found. The key is not a
// SHA-256 of the text: computing one takes several times as long as the rest of a
// look-up, and hides nothing from a reader of this memory, where the master keys are too.
type verifiedBundles = cache.Cache[string, *verified]

const (
	// bundleIdle is how long an unused bundle is kept. Clients with a long poll
	// come every half minute.
	bundleIdle = 10 * time.Minute
	// bundlesOfSession bounds the cached bundles of one session that have conditions
	// of a holder, who can make any number of them.
	bundlesOfSession = 8
)

func newVerifiedBundles(cfg *Config) (*verifiedBundles, error) {
	return cache.New(cache.Config[string, *verified]{
		Bytes: cfg.CacheBytes,
		Size:  func(text string, v *verified) int { return len(text) + v.size() },
		Idle:  bundleIdle, PerGroup: bundlesOfSession,
		Group: func(_ string, v *verified) (session [16]byte, narrowed bool) {
			return v.identity.Session, v.narrowed
		},
		Hash: signatureBits,
	}.WithClock(cfg.now))
}

// signatureBits returns bits of the end of a bundle, which is the end of a
// signature. The last character, which may encode fewer bits, is left out.
func signatureBits(text string) uint64 {
	if len(text) < 3 {
		return 0
	}
	return uint64(text[len(text)-2] ^ text[len(text)-3]<<2)
}

// keep caches a bundle. It clones the text, which may share the memory of all
// headers of a request.
func (r *ring) keep(text string, v *verified) {
	if r.cache != nil {
		r.cache.Put(strings.Clone(text), v)
	}
}

// size returns about how many bytes v takes.
func (v *verified) size() int {
	const self, address, other = 320, 64, 48
	n := self + len(v.identity.User) + len(v.identity.Device) + len(v.identity.Payload) + len(v.addresses)*address
	for i := range v.others {
		n += other + len(v.others[i].condition)
	}
	return n
}
