package bakery

import (
	"context"
	"errors"
	"net/netip"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery/checkers"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// Namespace is the URI of the conditions that discharges have beside the standard
// ones of the bakery ("time-before" and "declared"). Its prefix is empty.
const Namespace = "discharger"

// NewChecker returns a checker of the standard conditions and those of Namespace. A
// service registers its own conditions in it.
func NewChecker() *checkers.Checker {
	c := checkers.New(nil)
	RegisterCheckers(c)
	return c
}

// RegisterCheckers registers Namespace and its conditions in a checker:
//
//	client-ip <address or CIDR>    the client of [Oven.Context] has such an address
func RegisterCheckers(c *checkers.Checker) {
	c.Namespace().Register(Namespace, "")
	c.Register(rawmacaroon.CondClientIP, Namespace, checkClientIP)
}

func checkClientIP(ctx context.Context, _, arg string) error {
	prefix, err := rawmacaroon.ParseClientIP(arg)
	if err != nil {
		return err
	}
	addr, ok := ctx.Value(clientIPKey{}).(netip.Addr)
	if !ok || !rawmacaroon.MatchClientIP(prefix, addr) {
		return errors.New("client has another address")
	}
	return nil
}

// NewLocator fetches the public key of the service and returns a locator with it,
// for a stock bakery.Oven that adds caveats of its own for the discharger. Locations
// with and without a slash at the end are the same. The key is as trustworthy as the
// connection of the client.
func NewLocator(ctx context.Context, c *client.Client, location string) (bakery.ThirdPartyLocator, error) {
	key, err := c.Info(ctx)
	if err != nil {
		return nil, err
	}
	return Locator(location, key), nil
}

// Locator returns a locator with a known public key of the service.
func Locator(location string, key caveat.PublicKey) bakery.ThirdPartyLocator {
	s := bakery.NewThirdPartyStore()
	s.AddInfo(location, bakery.ThirdPartyInfo{PublicKey: bakery.PublicKey{Key: bakery.Key(key)}, Version: bakery.LatestVersion})
	return s
}
