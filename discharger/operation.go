package discharger

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
)

// operation is one call of the service: its time, the keys of its records, and its
// observation.
type operation struct {
	now     time.Time
	user    store.UserKey
	session caveat.SessionID     // zero: no session's record is loaded
	device  revocation.DeviceTag // zero: no device's record is loaded
	mode    caveat.Mode          // 0: unknown
	obs     Observation
}

// clientOp is an operation of a client, with the opened caveat and the event for the
// state machine.
type clientOp struct {
	operation
	caveatID []byte // identifier of the discharge
	opened   caveat.Opened
	cond     caveat.Condition
	added    []string  // caveats that the holder added to the refresh token
	before   time.Time // the earliest time-before among them; zero: none
	event    session.Event
}

// adminOp is an operation of a homeserver or an operator, without a caveat: it has
// only the id of a session.
type adminOp struct {
	operation
	order Order // of a revocation
}

func (s *Service) newAdminOp(op Op, user store.UserKey, id caveat.SessionID, o Order) *adminOp {
	return &adminOp{
		operation: operation{
			now: s.now(), user: user, session: id,
			obs: Observation{Op: op, Homeserver: user.Homeserver, Session: id},
		},
		order: o,
	}
}

// newClientOp opens the caveat and verifies the request. The operation is never nil.
func (s *Service) newClientOp(op Op, kind session.EventKind, req *Request) (*clientOp, error) {
	c := &clientOp{operation: operation{now: s.now(), obs: Observation{Op: op}}, caveatID: req.CaveatID}
	if err := s.clock.check(); err != nil {
		return c, unavailable(err)
	}
	if len(req.CaveatID) == 0 || len(req.CaveatID) > maxCaveatID {
		return c, badRequest(errCaveatID)
	}
	sealed := req.Caveat
	if sealed == nil {
		sealed = req.CaveatID
	}
	var err error
	if c.opened, err = s.cfg.Opener.Open(sealed); err != nil {
		return c, openError(err)
	}
	c.user.Homeserver, c.obs.Homeserver = c.opened.Homeserver, c.opened.Homeserver
	if c.opened.Version == caveat.V1 && !utf8.Valid(req.CaveatID) { // macaroon format 1 has text only
		return c, badRequest(errCaveatID)
	}
	if c.cond, err = caveat.ParseCondition(c.opened.Condition); err != nil {
		return c, badRequest(err)
	}
	c.user.User, c.session, c.device, c.mode = c.cond.User, c.cond.Session, revocation.TagOf(c.cond.Device), c.cond.Mode
	c.obs.Mode, c.obs.Session = c.cond.Mode, c.cond.Session
	c.event = s.newEvent(c, kind, req)
	return c, s.verifyRefreshToken(c, req)
}

func (s *Service) newEvent(c *clientOp, kind session.EventKind, req *Request) session.Event {
	own := req.Homeserver != "" && req.Homeserver == c.opened.Homeserver
	from := session.Party{Addr: req.Addr, Client: req.Client}
	if own && req.OnBehalfOf != nil { // another homeserver cannot name the client
		from = *req.OnBehalfOf
	}
	agent := strings.ToValidUTF8(from.Client, "\uFFFD")
	return session.Event{
		Kind: kind, Now: c.now.UnixMilli(), Condition: &c.cond, Tag: requestTag(req.RequestID),
		From:         session.Party{Addr: from.Addr.Unmap().WithZone(""), Client: s.names.Of(agent)},
		Agent:        agent,
		ByHomeserver: own,
		Retired:      c.opened.Retired,
	}
}

// openError classifies an error of an opener. A caveat to a retired key cannot be
// opened, so its session is unknown; every such session ended softly.
func openError(err error) error {
	switch {
	case errors.Is(err, caveat.ErrRetired):
		return &Refusal{Reason: session.ReasonSessionEnded, Ended: true, SoftLogout: true}
	case errors.Is(err, caveat.ErrNotOurs):
		return unavailable(&unknownKeyError{KeyDischarger, err})
	case errors.Is(err, caveat.ErrUnknownHomeserver):
		return unavailable(&unknownKeyError{KeyHomeserver, err})
	}
	return badRequest(err)
}

var errCaveatID = errors.New("caveat id is empty, too long or, in version 1, not text")

// maxCaveatID bounds the identifier of a discharge, in bytes.
const maxCaveatID = caveat.MaxTextSize

// verifyRefreshToken verifies the refresh token, if there is one. Other modes than
// rotate ignore it.
func (s *Service) verifyRefreshToken(c *clientOp, req *Request) error {
	if req.RefreshToken == nil || c.cond.Mode != caveat.ModeRotate || c.event.Retired {
		return nil
	}
	p, err := s.ring.Verify(req.RefreshToken, c.opened.Homeserver, c.cond.Session, c.now, c.event.From.Addr)
	switch {
	case errors.Is(err, errTokenMalformed):
		return badRequest(err)
	case errors.Is(err, errTokenInvalid):
		return &Refusal{Reason: session.ReasonTokenInvalid}
	case errors.Is(err, errTokenRetired):
		c.event.Retired = true
		return nil
	case errors.Is(err, errTokenKey):
		return unavailable(&unknownKeyError{KeyRefresh, err})
	case err != nil:
		return unavailable(err)
	}
	c.event.Token = &p.Token
	c.added, c.before = p.Extra, p.Before
	return nil
}

func requestTag(id string) session.RequestTag {
	if id == "" {
		return session.RequestTag{}
	}
	sum := sha256.Sum256([]byte(id))
	tag := session.RequestTag(sum[:4])
	tag[0] |= 1 // never zero, which means that the request has no id
	return tag
}

// records are the records of an operation, as they were loaded.
type records struct {
	session.State
	view store.View

	listing  store.Listing // of the user, if it was needed
	onDevice []stored      // the sessions of State.OnDevice
}

// load reads the records that the operation concerns.
func (s *Service) load(ctx context.Context, op *operation) (records, error) {
	if err := s.clock.check(); err != nil { // a wrong clock would expire live sessions
		return records{}, unavailable(err)
	}
	v, err := s.cfg.Store.Load(ctx, op.user, op.session, op.device)
	if err != nil {
		return records{}, unavailable(fmt.Errorf("load session: %w", err))
	}
	st := session.State{Losses: v.Losses}
	err = cmp.Or(st.User.UnmarshalBinary(v.User), st.Homeserver.UnmarshalBinary(v.Homeserver), st.Device.UnmarshalBinary(v.Device))
	if err == nil && v.Session != nil {
		st.Session = new(session.Record)
		err = st.Session.UnmarshalBinary(v.Session)
	}
	if err != nil {
		return records{}, unavailable(err)
	}
	return records{State: st, view: v}, nil
}

// attrs returns the log attributes of the session, and more. The id of a session is
// no secret: without the caveat it gives no access.
func (op *operation) attrs(more ...slog.Attr) []slog.Attr {
	all := append(make([]slog.Attr, 0, 3+len(more)), slog.String("homeserver", op.user.Homeserver))
	if op.session != (caveat.SessionID{}) {
		all = append(all, slog.String("session", op.session.String()))
	}
	if op.mode != 0 {
		all = append(all, slog.String("mode", op.mode.String()))
	}
	return append(all, more...)
}
