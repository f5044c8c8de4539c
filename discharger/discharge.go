package discharger

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
)

// Discharge issues a discharge, or returns the refusal.
func (s *Service) Discharge(ctx context.Context, req *Request) (*Grant, error) {
	c, err := s.newClientOp(OpDischarge, session.EventDischarge, req)
	var g *Grant
	if err == nil {
		g, err = s.discharge(ctx, c)
	}
	return g, s.finishClient(ctx, c, err)
}

func (s *Service) discharge(ctx context.Context, c *clientOp) (*Grant, error) {
	v, err := s.settle(ctx, c, maxRetries)
	if err != nil {
		return nil, err
	}
	if c.obs.LostWrite = v.LostWrite; v.LostWrite {
		s.cfg.Log.LogAttrs(ctx, slog.LevelError, "store lost a write: refresh token is newer than its session",
			c.attrs(slog.Uint64("epoch", c.event.Token.Epoch))...)
	}
	return s.grant(c, &v), nil
}

// settle decides a client's operation and commits the verdict, and starts over while
// other requests change the records. It returns a refusal as the error.
func (s *Service) settle(ctx context.Context, c *clientOp, retries int) (verdict, error) {
	for range retries {
		rec, err := s.load(ctx, &c.operation)
		if err != nil {
			return verdict{}, err
		}
		v, err := s.decide(ctx, c, &rec)
		if err != nil {
			return verdict{}, err
		}
		done, err := s.commit(ctx, c, &v, &rec)
		switch {
		case err != nil:
			return verdict{}, err
		case done && v.Reason != "":
			return verdict{}, refusal(&v.Outcome, v.Message)
		case done:
			return v, nil
		}
	}
	return verdict{}, errContention
}

// commit writes a verdict to the store. It returns false if the records have
// changed since they were read.
//
// Sessions over a policy's limit end first, in a separate write. If that write is
// repeated, the activation has not happened, so the policy is evaluated again and
// its verdict includes the events that are not published yet.
func (s *Service) commit(ctx context.Context, c *clientOp, v *verdict, rec *records) (bool, error) {
	if done, err := s.write(ctx, &c.operation, v.evict); err != nil || !done {
		return false, err
	}
	ed, err := s.editOf(c, v, rec)
	if err != nil {
		return false, unavailable(err)
	}
	if len(ed.changes) == 0 && c.event.Kind != session.EventDischarge {
		if ed, err = s.reassertEnd(c, rec); err != nil {
			return false, unavailable(err)
		}
	}
	// Only an ended session's event is published again: other refusals must not
	// reveal the state of the session by their timing.
	if len(ed.changes) == 0 && v.Ended {
		ed = s.republish(c, rec)
	}
	done, err := s.write(ctx, &c.operation, ed)
	if err != nil && v.Touch {
		s.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "last use of session not stored", c.attrs(slog.Any("error", err))...)
		return true, nil
	}
	return done, err
}

// editOf returns the edit of a verdict.
func (s *Service) editOf(c *clientOp, v *verdict, rec *records) (ed edit, err error) {
	op := &c.operation
	if v.Next != nil {
		if err := s.changeSession(&ed, op, stored{id: c.session, raw: rec.view.Session}, v.Next, &c.cond); err != nil {
			return edit{}, err
		}
	}
	if v.NextDevice != nil {
		if err := s.changeDevice(&ed, c.device, rec.view.Device, v.NextDevice); err != nil {
			return edit{}, err
		}
		for _, x := range rec.onDevice {
			if !slices.Contains(v.Replaces, x.id) {
				continue
			}
			if err := s.end(&ed, op, x, revocation.End{Soft: true, Cause: revocation.CauseReplaced, At: c.event.Now}); err != nil {
				return edit{}, err
			}
		}
		s.dropDevices(&ed, c, rec)
	}
	if v.NextUser != nil {
		r, err := s.changeUser(&ed, op, rec.view.User, v.NextUser)
		if err != nil {
			return edit{}, err
		}
		r.Cause = v.End.Cause // the user's record may not have it
	}
	return ed, nil
}

// grant mints the discharge and the refresh token of a verdict.
func (s *Service) grant(c *clientOp, v *verdict) *Grant {
	expires := c.now.Add(v.TTL).Truncate(time.Millisecond)
	conditions := make([]string, 0, 2+len(v.Caveats))
	conditions = append(conditions, standard(c.opened.StdPrefix, rawmacaroon.TimeBefore(expires)))
	g := &Grant{Expires: expires, ExpiresIn: expires.Sub(c.now), Session: c.session}
	if v.Issue != nil {
		g.Epoch = v.Issue.Epoch
		conditions = append(conditions, standard(c.opened.StdPrefix, rawmacaroon.Epoch(g.Epoch)))
		g.RefreshToken = s.ring.Mint(c.opened.Homeserver, c.session, *v.Issue, c.added)
	}
	for _, condition := range c.added { // the discharge is as narrow as the token
		if name, _ := rawmacaroon.CutCondition(condition); name == rawmacaroon.CondClientIP {
			conditions = append(conditions, condition)
		}
	}
	g.Discharge = mint(&c.opened, c.caveatID, append(conditions, v.Caveats...))
	return g
}

// Discharge is a minted discharge macaroon. Its first caveat is always
//
//	time-before <RFC 3339>
//
// in mode rotate followed by
//
//	declared epoch <n>
//
// and then by those of the policy, verbatim. The first two have the prefix of the
// namespace "std" that the caveat was sealed with, as stock bakery checkers expect.
type Discharge struct {
	Version   caveat.Version // of the caveat that it discharges
	ID        []byte         // Request.CaveatID
	Caveats   []string
	Signature [rawmacaroon.Size]byte

	stdPrefix string
}

// mint makes a discharge of an opened caveat.
func mint(o *caveat.Opened, id []byte, caveats []string) *Discharge {
	sig := rawmacaroon.Key(o.RootKey)
	sig = rawmacaroon.Hash(&sig, id)
	for _, c := range caveats {
		sig = rawmacaroon.Hash(&sig, []byte(c))
	}
	return &Discharge{Version: o.Version, ID: id, Caveats: caveats, Signature: sig, stdPrefix: o.StdPrefix}
}

// standard returns a condition of the namespace "std" with its prefix in the
// caveat's namespace.
func standard(prefix, condition string) string {
	if prefix == "" {
		return condition
	}
	return prefix + ":" + condition
}

// AppendJSON appends the macaroon in the bakery format of the caveat's version: for V1
// and V2 the macaroon formats 1 and 2, for V3 format 2 in an envelope with the namespace.
func (d *Discharge) AppendJSON(b []byte) ([]byte, error) {
	switch d.Version {
	case caveat.V1:
		return d.appendV1(b)
	case caveat.V2:
		return d.appendV2(b)
	}
	b, err := d.appendV2(append(b, `{"m":`...))
	if err != nil {
		return nil, err
	}
	b = append(b, `,"v":3,"ns":`...)
	b, err = jsontext.AppendQuote(b, "std:"+d.stdPrefix)
	return append(b, '}'), err
}

// appendCaveats appends the caveats, each as an object with one member.
func (d *Discharge) appendCaveats(b []byte, member string) (_ []byte, err error) {
	for i, c := range d.Caveats {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = jsontext.AppendQuote(append(b, member...), c); err != nil {
			return nil, err
		}
		b = append(b, '}')
	}
	return b, nil
}

func (d *Discharge) appendV1(b []byte) ([]byte, error) {
	b, err := d.appendCaveats(append(b, `{"caveats":[`...), `{"cid":`)
	if err != nil {
		return nil, err
	}
	b, err = jsontext.AppendQuote(append(b, `],"location":"","identifier":`...), d.ID)
	b = append(b, `,"signature":"`...)
	b = hex.AppendEncode(b, d.Signature[:])
	return append(b, `"}`...), err
}

func (d *Discharge) appendV2(b []byte) ([]byte, error) {
	b, err := d.appendCaveats(append(b, `{"c":[`...), `{"i":`)
	if err != nil {
		return nil, err
	}
	b = base64.RawURLEncoding.AppendEncode(append(b, `],"i64":"`...), d.ID)
	b = base64.RawURLEncoding.AppendEncode(append(b, `","s64":"`...), d.Signature[:])
	return append(b, `"}`...), nil
}
