package discharger

import (
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

// attempt is one request on its way through the service: everything about it
// that does not depend on the store.
type attempt struct {
	now    time.Time
	id     []byte // identifier of the discharge
	opened caveat.Opened
	cond   caveat.Condition
	user   store.UserKey
	device revocation.DeviceTag
	extra  []string // caveats a holder added to the refresh token
	before time.Time
	event  session.Event
	evict  edit // what a policy's limit on sessions ends, before an activation
	obs    Observation

	listing  store.Listing // of the user, where an activation needed it
	onDevice []stored      // the sessions that an activation replaces
}

// begin opens and checks what was presented. The attempt is never nil.
func (s *Service) begin(op Op, req *Request) (*attempt, error) {
	a := &attempt{now: s.cfg.Now(), id: req.ID}
	a.obs.Op = op
	if err := s.clock.check(); err != nil {
		return a, unavailable(err)
	}
	sealed := req.Caveat
	if sealed == nil {
		sealed = req.ID
	}
	if len(req.ID) == 0 || len(req.ID) > maxID {
		return a, badRequest(errBadID)
	}
	var err error
	if a.opened, err = s.cfg.Opener.Open(sealed); err != nil {
		return a, openError(err)
	}
	a.obs.Homeserver = a.opened.Homeserver
	if a.opened.Version == caveat.V1 && !utf8.Valid(req.ID) { // format 1 has no other way to say it
		return a, badRequest(errBadID)
	}
	if a.cond, err = caveat.ParseCondition(a.opened.Condition); err != nil {
		return a, badRequest(err)
	}
	a.obs.Mode, a.obs.Session = a.cond.Mode, a.cond.Session
	a.user = store.UserKey{Homeserver: a.opened.Homeserver, User: a.cond.User}
	a.device = revocation.TagOf(a.cond.Device)
	own := req.Homeserver != "" && req.Homeserver == a.opened.Homeserver
	from := session.Party{Addr: req.Addr, Client: req.Client}
	if own && req.OnBehalfOf != nil { // no other homeserver is believed
		from = *req.OnBehalfOf
	}
	agent := strings.ToValidUTF8(from.Client, "\uFFFD")
	a.event = session.Event{
		Kind: session.EventDischarge, Now: a.now.UnixMilli(), Condition: &a.cond, Tag: requestTag(req.RequestID),
		From:         session.Party{Addr: from.Addr.Unmap().WithZone(""), Client: s.names.Of(agent)},
		Agent:        agent,
		ByHomeserver: own,
		Retired:      a.opened.Retired,
	}
	return a, s.present(a, req)
}

// openError classifies an error of an opener. A caveat to a retired key cannot be
// opened, so its session has no name here; the end of every such session is soft.
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

// errBadID is the error for an identifier that a discharge cannot have.
var errBadID = errors.New("caveat id is empty, too long, or not text where it has to be")

// maxID bounds the identifier of a discharge that a client asks for.
const maxID = caveat.MaxTextSize

// present verifies the refresh token, if there is one. Outside mode rotate
// there are none, and what is presented as one is not looked at.
func (s *Service) present(a *attempt, req *Request) error {
	if req.RefreshToken == nil || a.cond.Mode != caveat.ModeRotate || a.event.Retired {
		return nil
	}
	p, err := s.ring.Verify(req.RefreshToken, a.opened.Homeserver, a.cond.Session, a.now, a.event.From.Addr)
	switch {
	case errors.Is(err, errTokenMalformed):
		return badRequest(err)
	case errors.Is(err, errTokenInvalid):
		return &Refusal{Reason: session.ReasonTokenInvalid}
	case errors.Is(err, errTokenRetired):
		a.event.Retired = true
		return nil
	case errors.Is(err, errTokenKey):
		return unavailable(&unknownKeyError{KeyRefresh, err})
	case err != nil:
		return unavailable(err)
	}
	a.event.Token = &p.Token
	a.extra, a.before = p.Extra, p.Before
	return nil
}

func requestTag(id string) session.RequestTag {
	if id == "" {
		return session.RequestTag{}
	}
	sum := sha256.Sum256([]byte(id))
	tag := session.RequestTag(sum[:4])
	tag[0] |= 1 // never zero, which stands for none
	return tag
}

// load reads the records that the attempt is about.
func (s *Service) load(ctx context.Context, a *attempt) (session.State, store.View, error) {
	if err := s.clock.check(); err != nil { // sessions would seem idle that are not
		return session.State{}, store.View{}, unavailable(err)
	}
	v, err := s.cfg.Store.Load(ctx, a.user, a.cond.Session, a.device)
	if err != nil {
		return session.State{}, store.View{}, unavailable(fmt.Errorf("load session: %w", err))
	}
	st, err := decodeView(v)
	if err != nil {
		return session.State{}, store.View{}, unavailable(err)
	}
	return st, v, nil
}

func decodeView(v store.View) (session.State, error) {
	st := session.State{Losses: v.Losses}
	if err := st.User.UnmarshalBinary(v.User); err != nil {
		return session.State{}, err
	}
	if err := st.Homeserver.UnmarshalBinary(v.Homeserver); err != nil {
		return session.State{}, err
	}
	if err := st.Device.UnmarshalBinary(v.Device); err != nil {
		return session.State{}, err
	}
	if v.Session != nil {
		st.Session = new(session.Record)
		if err := st.Session.UnmarshalBinary(v.Session); err != nil {
			return session.State{}, err
		}
	}
	return st, nil
}

// attrs are the log attributes that say which session is meant. The id of a
// session is no secret: without its caveat it is good for nothing.
func (a *attempt) attrs(more ...slog.Attr) []slog.Attr {
	all := append(make([]slog.Attr, 0, 3+len(more)), slog.String("homeserver", a.opened.Homeserver))
	if a.cond.Session != (caveat.SessionID{}) {
		all = append(all, slog.String("session", a.cond.Session.String()))
	}
	if a.cond.Mode != 0 {
		all = append(all, slog.String("mode", a.cond.Mode.String()))
	}
	return append(all, more...)
}
