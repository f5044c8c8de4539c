package discharger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/clientname"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/policy"
)

// decide runs the state machine, asks the policy about what it found, and
// works the answer in.
func (s *Service) decide(ctx context.Context, a *attempt, st *session.State) (session.Ruling, error) {
	o, err := s.step(ctx, a, st)
	if err != nil {
		return session.Ruling{}, err
	}
	a.obs.Replay, a.obs.Action = o.Replay, o.Action
	a.evict = edit{}
	if o.Replay == "" {
		return session.Ruling{Outcome: o}, nil
	}
	grant := s.proposal(a, &o)
	decision := policy.Decision{Effect: policy.EffectAllow}
	if !s.plain {
		if decision, err = s.ask(ctx, a, *st, &o, grant); err != nil {
			return session.Ruling{}, unavailable(err)
		}
	}
	now := a.event.Now
	if decision.Effect == policy.EffectRevokeUser {
		if now, err = s.storeNow(ctx); err != nil {
			return session.Ruling{}, err
		}
	}
	a.obs.Rule, a.obs.PolicyHash = decision.Rule, decision.Hash
	r, err := session.Apply(o, grant, decision, now, st.User)
	if err != nil {
		return session.Ruling{}, unavailable(err)
	}
	if r.NotYet {
		a.obs.Deferred = true
		return session.Ruling{}, &UnavailableError{RetryAfter: r.RetryAfter, err: fmt.Errorf("policy rule %q: not now", decision.Rule)}
	}
	if r.Reason == "" && decision.KeepSessions > 0 && o.Action == policy.ActionActivate {
		if a.evict, err = s.beyond(ctx, a, *st, decision.KeepSessions-1); err != nil {
			return session.Ruling{}, err
		}
	}
	return r, nil
}

// step runs the state machine, and reads what it needs beside the records.
func (s *Service) step(ctx context.Context, a *attempt, st *session.State) (session.Outcome, error) {
	for {
		o := session.Step(*st, &a.event, s.cfg.Limits)
		switch {
		case o.NeedsTime:
			now, err := s.storeNow(ctx)
			if err != nil {
				return session.Outcome{}, err
			}
			st.Now = now
		case o.NeedsDevice:
			if err := s.listDevice(ctx, a, st); err != nil {
				return session.Outcome{}, err
			}
		case o.NotYet && o.FutureMark > 0:
			a.obs.FutureMark = true
			s.cfg.Log.LogAttrs(ctx, slog.LevelError, "revocation mark is in the future: a clock was wrong when it was made; nothing is decided by it",
				a.attrs(slog.Time("mark", utc(o.FutureMark)))...)
			return session.Outcome{}, unavailable(fmt.Errorf("revocation mark at %d is in the future", o.FutureMark))
		case o.NotYet:
			s.cfg.Log.LogAttrs(ctx, slog.LevelError, "caveat is from the future: a clock is wrong, here or at the homeserver",
				a.attrs(slog.Time("minted", utc(a.cond.Minted)))...)
			return session.Outcome{}, unavailable(fmt.Errorf("caveat minted at %d is from the future", a.cond.Minted))
		default:
			return o, nil
		}
	}
}

// storeNow returns the store's time, Unix ms.
func (s *Service) storeNow(ctx context.Context) (int64, error) {
	now, err := s.cfg.Store.Now(ctx)
	if err != nil {
		return 0, unavailable(fmt.Errorf("read the store's time: %w", err))
	}
	return now.UnixMilli(), nil
}

// listDevice finds the other live sessions of the device.
func (s *Service) listDevice(ctx context.Context, a *attempt, st *session.State) error {
	live, _, err := s.list(ctx, a, st.Homeserver)
	if err != nil {
		return err
	}
	st.Listed, st.OnDevice, a.onDevice = true, nil, nil
	for _, o := range live {
		if o.id != a.cond.Session && o.record.Device == a.cond.Device {
			st.OnDevice, a.onDevice = append(st.OnDevice, o.id), append(a.onDevice, o)
		}
	}
	return nil
}

// proposal is what the core would grant: never past the session's end, the
// condition's limit, or what the refresh token's holder left of it.
func (s *Service) proposal(a *attempt, o *session.Outcome) policy.Grant {
	if o.Reason != "" {
		return policy.Grant{Revokes: o.Revokes()}
	}
	longest := s.cfg.MaxTTL
	if a.cond.MaxTTL > 0 {
		longest = min(longest, a.cond.MaxTTL)
	}
	if o.Ends > 0 {
		longest = min(longest, time.UnixMilli(o.Ends).Sub(a.now))
	}
	if !a.before.IsZero() {
		longest = min(longest, a.before.Sub(a.now))
	}
	return policy.Grant{TTL: min(s.cfg.TTL, longest), MaxTTL: longest}
}

// ask puts the question to the policy. Whatever goes wrong in there is an
// error, a panic included.
func (s *Service) ask(ctx context.Context, a *attempt, st session.State, o *session.Outcome, g policy.Grant) (d policy.Decision, err error) {
	q := &question{Input: s.input(a, st, o, g), service: s, attempt: a, homeserver: st.Homeserver}
	q.Counter = q
	in := &q.Input
	d, err = policy.Ask(ctx, s.cfg.Policy, in)
	if p := (*policy.PanicError)(nil); errors.As(err, &p) {
		s.cfg.Log.LogAttrs(ctx, slog.LevelError, "policy panicked", slog.Any("panic", p.Value), slog.String("stack", string(p.Stack)))
	}
	if err != nil {
		return policy.Decision{}, fmt.Errorf("evaluate policy %q: %w", in.Policy, err)
	}
	return d, nil
}

// A question is the input of a policy, which counts sessions when they are read.
type question struct {
	policy.Input
	service    *Service
	attempt    *attempt
	homeserver session.GenerationRecord
}

// LiveSessions counts the live sessions of the user but for the attempt's own.
func (q *question) LiveSessions(ctx context.Context) (int, error) {
	live, _, err := q.service.list(ctx, q.attempt, q.homeserver)
	if err != nil {
		return 0, err
	}
	own := func(o stored) bool { return o.id == q.attempt.cond.Session }
	return len(slices.DeleteFunc(live, own)), nil
}

func (s *Service) input(a *attempt, st session.State, o *session.Outcome, g policy.Grant) policy.Input {
	r := o.Session
	in := policy.Input{
		Now: a.now.UTC(), Action: o.Action, Policy: s.policyName(a), Replay: o.Replay,
		Homeserver: policy.Homeserver{Name: a.opened.Homeserver, Generation: st.Homeserver.Generation},
		User:       policy.User{ID: a.cond.User, Generation: st.User.Generation, Sessions: -1},
		Session: policy.Session{
			ID: a.cond.Session.String(), Device: a.cond.Device, Mode: a.cond.Mode.String(),
			Minted: utc(a.cond.Minted), Created: utc(r.Created), LastUsed: utc(r.LastUsed),
			Epoch: r.Confirmed.Epoch, FirstIP: addrText(r.First.Addr),
			FirstClient: a.policyClient(r.First), LastClient: a.policyClient(r.Last), Labels: overlay(a.cond.Labels, r.Labels),
		},
		Request: policy.Request{
			Client: a.event.From.Client, UserAgent: clientname.Cut(a.event.Agent, maxUserAgent), Homeserver: a.event.ByHomeserver,
		},
		Grant: g,
	}
	in.Session.LastIP, in.Request.IP = in.Session.FirstIP, in.Session.FirstIP // mostly the same, so written once
	if r.Last.Addr != r.First.Addr {
		in.Session.LastIP = addrText(r.Last.Addr)
	}
	if a.event.From.Addr != r.First.Addr {
		in.Request.IP = addrText(a.event.From.Addr)
	}
	if o.Ends > 0 {
		in.Session.Expires = utc(o.Ends)
	}
	return in
}

// policyName is the name of the policy that applies to the session.
func (s *Service) policyName(a *attempt) string {
	if a.cond.Policy != "" {
		return a.cond.Policy
	}
	if name := s.cfg.Policies[a.opened.Homeserver]; name != "" {
		return name
	}
	return policy.DefaultName
}

// stored is a session record as it was listed.
type stored struct {
	id     caveat.SessionID
	raw    []byte
	record session.Record
}

// beyond is what ends all but the keep most recently used of the user's other
// sessions.
func (s *Service) beyond(ctx context.Context, a *attempt, st session.State, keep int) (edit, error) {
	live, gone, err := s.list(ctx, a, st.Homeserver)
	if err != nil {
		return edit{}, err
	}
	// What the activation replaces does not count, and ends in any case.
	live = slices.DeleteFunc(live, func(o stored) bool {
		return o.id == a.cond.Session || slices.Contains(st.OnDevice, o.id)
	})
	ed := edit{revoked: s.remains(a, gone)}
	for _, o := range live[min(keep, len(live)):] {
		if err := s.end(&ed, a, o, revocation.End{Soft: true, Cause: revocation.CauseLimit, At: a.event.Now}); err != nil {
			return edit{}, err
		}
	}
	return ed, nil
}

// policyClient returns the client of a record as the policy sees it: what the
// request's client is compared with is named in the same way.
func (a *attempt) policyClient(p session.Party) string {
	if p.Client != a.event.From.Client && clientname.Was(p.Client, a.event.Agent) {
		return a.event.From.Client
	}
	return p.Shown().Client
}

// maxUserAgent is how much of a User-Agent policies see, in bytes.
const maxUserAgent = 256

func utc(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func overlay(base, over map[string]string) map[string]string {
	if len(over) == 0 {
		return base
	}
	m := maps.Clone(base)
	if m == nil {
		return over
	}
	maps.Copy(m, over)
	return m
}
