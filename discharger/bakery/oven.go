package bakery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/homeserver"
)

// SessionOp is the operation that a bundle of a live session authorizes, unless
// [Config.Ops] returns others.
var SessionOp = bakery.Op{Entity: "session", Action: "use"}

// Config configures an [Oven]. Only Homeserver is required.
type Config struct {
	// Homeserver has the keys of the service that adopts sessions, which is the
	// homeserver in terms of the discharger. Without a Check, conditions that package
	// homeserver does not know are left to the Checker of the bakery.
	Homeserver homeserver.Config
	// Feed configures the feed of revocations that [Oven.Run] follows. Its Client has
	// the API key of the homeserver. Without a Client, Homeserver.Revocations counts.
	Feed homeserver.FeedConfig
	// TrustedProxies are the addresses of proxies whose X-Forwarded-For is believed;
	// see package clientaddr. Nil: the client is the peer.
	TrustedProxies []netip.Prefix
	// Ops returns the operations that an identity may perform. Nil: SessionOp. With
	// identchecker, return identchecker.LoginOp as well.
	Ops func(homeserver.Identity) []bakery.Op
}

// Oven mints access macaroons and verifies bundles. It is a
// bakery.MacaroonVerifier and may be used concurrently.
type Oven struct {
	cfg  Config
	hs   *homeserver.Homeserver
	feed *homeserver.Feed // nil: none
}

// New returns an Oven.
func New(cfg Config) (*Oven, error) {
	o := &Oven{cfg: cfg}
	if o.cfg.Ops == nil {
		o.cfg.Ops = func(homeserver.Identity) []bakery.Op { return []bakery.Op{SessionOp} }
	}
	if cfg.Homeserver.Check == nil { // bakery.Checker checks the conditions next
		cfg.Homeserver.Check = func(context.Context, homeserver.Caveat) error { return nil }
	}
	var err error
	if cfg.Feed.Client != nil {
		cfg.Feed.Leeway = cfg.Homeserver.Leeway
		if o.feed, err = homeserver.NewFeed(cfg.Feed); err != nil {
			return nil, fmt.Errorf("new oven: %w", err)
		}
		cfg.Homeserver.Revocations = o.feed
	}
	if o.hs, err = homeserver.New(cfg.Homeserver); err != nil {
		return nil, fmt.Errorf("new oven: %w", err)
	}
	return o, nil
}

// Run follows revocations until ctx ends. It returns at once without a feed.
func (o *Oven) Run(ctx context.Context) error {
	if o.feed == nil {
		return nil
	}
	return o.feed.Run(ctx)
}

// WaitCurrent blocks until all revocations before the call are known, or ctx ends.
// A service may call it before it serves.
func (o *Oven) WaitCurrent(ctx context.Context) error {
	if o.feed == nil {
		return nil
	}
	return o.feed.WaitCurrent(ctx)
}

// Reload replaces the keys of the homeserver; see [homeserver.Homeserver.Reload].
func (o *Oven) Reload(cfg homeserver.Config) error { return o.hs.Reload(cfg) }

// NewMacaroon mints the access macaroon of a new session. A login answers it to the
// client, alone or in an httpbakery.NewDischargeRequiredError.
func (o *Oven) NewMacaroon(p homeserver.MintParams) (*bakery.Macaroon, error) {
	minted, err := o.hs.Mint(p)
	if err != nil {
		return nil, err
	}
	return bakery.NewLegacyMacaroon(minted.Macaroon)
}

// VerifyMacaroon verifies an access macaroon with its discharges, including their
// expiry and revocation. It returns the operations of its identity and the
// first-party conditions, which a [checkers.Checker] checks next.
//
// A refused bundle is a *bakery.VerificationError, so that the Checker tries the
// other macaroons of the request. An undecided one is another error, which ends the
// authorization: answer it 503, see [WriteError]. If the request of [Oven.Context] has
// a valid bundle too, it is a VerificationError as well: cookies of another service on
// the same host are undecided, and must not keep a session from being used.
func (o *Oven) VerifyMacaroon(ctx context.Context, ms macaroon.Slice) ([]bakery.Op, []string, error) {
	identity, err := o.verify(ctx, ms)
	if err != nil {
		hasValid, ok := ctx.Value(validKey{}).(func() bool)
		if refusal := Refusal(err); refusal != nil && refusal.Undecided() && !(ok && hasValid()) {
			return nil, nil, err
		}
		return nil, nil, &bakery.VerificationError{Reason: err}
	}
	var conditions []string
	for _, m := range ms {
		for _, c := range m.Caveats() {
			if len(c.VerificationId) == 0 {
				conditions = append(conditions, string(c.Id))
			}
		}
	}
	return o.cfg.Ops(identity), conditions, nil
}

// Identity returns the identity of the first session that was used in an authorization.
func (o *Oven) Identity(ctx context.Context, info *bakery.AuthInfo) (homeserver.Identity, error) {
	for i, used := range info.Used {
		if used {
			return o.verify(ctx, info.Macaroons[i])
		}
	}
	return homeserver.Identity{}, errors.New("no session was used")
}

// Format writes the name of the homeserver and no secret, for every verb.
func (o Oven) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "oven of %v", o.hs) }

func (o *Oven) verify(ctx context.Context, ms macaroon.Slice) (homeserver.Identity, error) {
	text, err := bundle.Encode(ms)
	if err != nil {
		return homeserver.Identity{}, err
	}
	return o.hs.Verify(ctx, text, requestOf(ctx))
}
