package discharger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/discharger/discharger/discharger/clientname"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/policy"
)

// verdict is the decision about a client's operation: the state machine's
// outcome, narrowed by the policy.
type verdict struct {
	session.Ruling
	evict edit // ends sessions over a policy's limit; written before an activation
}

// decide runs the state machine, evaluates the policy on the outcome, and applies
// its decision.
func (s *Service) decide(ctx context.Context, c *clientOp, rec *records) (verdict, error) {
	o, err := s.step(ctx, c, rec)
	if err != nil {
		return verdict{}, err
	}
	c.obs.Replay, c.obs.Action = o.Replay, o.Action
	if o.Replay == "" { // not for the policy
		return verdict{Ruling: session.Ruling{Outcome: o}}, nil
	}
	grant := s.proposal(c, &o)
	decision := policy.Decision{Effect: policy.EffectAllow}
	if !s.plain {
		if decision, err = s.ask(ctx, c, rec, &o, grant); err != nil {
			return verdict{}, unavailable(err)
		}
	}
	c.obs.Rule, c.obs.PolicyHash = decision.Rule, decision.Hash
	now := c.event.Now
	if decision.Effect == policy.EffectRevokeUser {
		if now, err = s.storeNow(ctx); err != nil {
			return verdict{}, err
		}
	}
	var v verdict
	if v.Ruling, err = session.Apply(o, grant, decision, now, rec.User); err != nil {
		return verdict{}, unavailable(err)
	}
	if v.NotYet {
		c.obs.Deferred = true
		return verdict{}, &UnavailableError{RetryAfter: v.RetryAfter, err: fmt.Errorf("policy rule %q: deferred", decision.Rule)}
	}
	if v.Reason == "" && decision.KeepSessions > 0 && o.Action == policy.ActionActivate {
		v.evict, err = s.overLimit(ctx, c, rec, decision.KeepSessions-1)
	}
	return v, err
}

// step runs the state machine, and reads the store's time or the device's sessions
// if the outcome needs them.
func (s *Service) step(ctx context.Context, c *clientOp, rec *records) (session.Outcome, error) {
	for {
		o := session.Step(rec.State, &c.event, s.cfg.Limits)
		switch {
		case o.NeedsTime:
			now, err := s.storeNow(ctx)
			if err != nil {
				return session.Outcome{}, err
			}
			rec.Now = now
		case o.NeedsDevice:
			if err := s.listDevice(ctx, c, rec); err != nil {
				return session.Outcome{}, err
			}
		case o.NotYet && o.FutureMark > 0:
			c.obs.FutureMark = true
			s.cfg.Log.LogAttrs(ctx, slog.LevelError, "revocation mark is in the future, request answered 503: lift it if a clock was wrong",
				c.attrs(slog.Time("mark", utc(o.FutureMark)))...)
			return session.Outcome{}, unavailable(fmt.Errorf("revocation mark at %d is in the future", o.FutureMark))
		case o.NotYet:
			s.cfg.Log.LogAttrs(ctx, slog.LevelError, "caveat is from the future, request answered 503: a clock is wrong, here or at the homeserver",
				c.attrs(slog.Time("minted", utc(c.cond.Minted)))...)
			return session.Outcome{}, unavailable(fmt.Errorf("caveat minted at %d is from the future", c.cond.Minted))
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

// listDevice lists the other live sessions of the device.
func (s *Service) listDevice(ctx context.Context, c *clientOp, rec *records) error {
	live, _, err := s.list(ctx, &c.operation, rec)
	if err != nil {
		return err
	}
	rec.Listed, rec.OnDevice, rec.onDevice = true, nil, nil
	for _, x := range live {
		if x.id != c.session && x.record.Device == c.cond.Device {
			rec.OnDevice, rec.onDevice = append(rec.OnDevice, x.id), append(rec.onDevice, x)
		}
	}
	return nil
}

// proposal returns the grant that a policy can narrow: within the session's lifetime
// and the limits of the condition and the refresh token.
func (s *Service) proposal(c *clientOp, o *session.Outcome) policy.Grant {
	if o.Reason != "" {
		return policy.Grant{Revokes: o.Revokes()}
	}
	longest := s.cfg.MaxTTL
	if c.cond.MaxTTL > 0 {
		longest = min(longest, c.cond.MaxTTL)
	}
	if o.Ends > 0 {
		longest = min(longest, time.UnixMilli(o.Ends).Sub(c.now))
	}
	if !c.before.IsZero() {
		longest = min(longest, c.before.Sub(c.now))
	}
	return policy.Grant{TTL: min(s.cfg.TTL, longest), MaxTTL: longest}
}

// overLimit returns the edit that ends all but the keep most recently used of the
// user's other sessions. Sessions that the activation replaces do not count.
func (s *Service) overLimit(ctx context.Context, c *clientOp, rec *records, keep int) (ed edit, err error) {
	live, ended, err := s.list(ctx, &c.operation, rec)
	if err != nil {
		return edit{}, err
	}
	live = slices.DeleteFunc(live, func(x stored) bool { return x.id == c.session || slices.Contains(rec.OnDevice, x.id) })
	s.republishAll(&ed, &c.operation, ended)
	for _, x := range live[min(keep, len(live)):] {
		if err := s.end(&ed, &c.operation, x, revocation.End{Soft: true, Cause: revocation.CauseLimit, At: c.event.Now}); err != nil {
			return edit{}, err
		}
	}
	return ed, nil
}

func utc(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// ask evaluates the policy. A panic of the policy is an error.
func (s *Service) ask(ctx context.Context, c *clientOp, rec *records, o *session.Outcome, g policy.Grant) (policy.Decision, error) {
	q := &question{Input: s.input(c, rec, o, g), service: s, op: c, rec: rec}
	q.Counter = q
	d, err := policy.Ask(ctx, s.cfg.Policy, &q.Input)
	if p := (*policy.PanicError)(nil); errors.As(err, &p) {
		s.cfg.Log.LogAttrs(ctx, slog.LevelError, "policy panicked", slog.Any("panic", p.Value), slog.String("stack", string(p.Stack)))
	}
	if err != nil {
		return policy.Decision{}, fmt.Errorf("evaluate policy %q: %w", q.Policy, err)
	}
	return d, nil
}

// question is the input of a policy, which counts sessions only on demand.
type question struct {
	policy.Input
	service *Service
	op      *clientOp
	rec     *records
}

// LiveSessions counts the user's live sessions other than the operation's own.
func (q *question) LiveSessions(ctx context.Context) (int, error) {
	live, _, err := q.service.list(ctx, &q.op.operation, q.rec)
	if err != nil {
		return 0, err
	}
	return len(slices.DeleteFunc(live, func(x stored) bool { return x.id == q.op.session })), nil
}

func (s *Service) input(c *clientOp, rec *records, o *session.Outcome, g policy.Grant) policy.Input {
	r := o.Session
	in := policy.Input{
		Now: c.now.UTC(), Action: o.Action, Replay: o.Replay,
		Policy:     cmp.Or(c.cond.Policy, s.cfg.Policies[c.opened.Homeserver], policy.DefaultName),
		Homeserver: policy.Homeserver{Name: c.opened.Homeserver, Generation: rec.Homeserver.Generation},
		User:       policy.User{ID: c.cond.User, Generation: rec.User.Generation, Sessions: -1},
		Session: policy.Session{
			ID: c.cond.Session.String(), Device: c.cond.Device, Mode: c.cond.Mode.String(),
			Minted: utc(c.cond.Minted), Created: utc(r.Created), LastUsed: utc(r.LastUsed),
			Epoch: r.Confirmed.Epoch, FirstIP: addrText(r.First.Addr),
			FirstClient: c.policyClient(r.First), LastClient: c.policyClient(r.Last), Labels: overlay(c.cond.Labels, r.Labels),
		},
		Request: policy.Request{
			Client: c.event.From.Client, UserAgent: clientname.Cut(c.event.Agent, maxUserAgent), Homeserver: c.event.ByHomeserver,
		},
		Grant: g,
	}
	in.Session.LastIP, in.Request.IP = in.Session.FirstIP, in.Session.FirstIP // mostly the same, so formatted once
	if r.Last.Addr != r.First.Addr {
		in.Session.LastIP = addrText(r.Last.Addr)
	}
	if c.event.From.Addr != r.First.Addr {
		in.Request.IP = addrText(c.event.From.Addr)
	}
	if o.Ends > 0 {
		in.Session.Expires = utc(o.Ends)
	}
	return in
}

// policyClient returns the client name of a record for the policy, in the form of
// the request's client with which rules compare it.
func (c *clientOp) policyClient(p session.Party) string {
	if p.Client != c.event.From.Client && clientname.Was(p.Client, c.event.Agent) {
		return c.event.From.Client
	}
	return p.Shown().Client
}

// maxUserAgent bounds the User-Agent in a policy's input, in bytes.
const maxUserAgent = 256

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
	if len(base) == 0 {
		return over
	}
	m := maps.Clone(base)
	maps.Copy(m, over)
	return m
}
