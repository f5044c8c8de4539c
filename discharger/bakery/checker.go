package bakery

import (
	"context"
	"errors"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery/checkers"

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
	if !rawmacaroon.MatchClientIP(prefix, requestOf(ctx).ClientIP) {
		return errors.New("client has another address")
	}
	return nil
}

// NewLocator fetches the public key of the service and returns a locator with it,
// for a stock bakery.Oven. The key is as trustworthy as the connection of c.
func NewLocator(ctx context.Context, c *client.Client, location string) (bakery.ThirdPartyLocator, error) {
	key, err := c.Info(ctx)
	if err != nil {
		return nil, err
	}
	s := bakery.NewThirdPartyStore()
	s.AddInfo(location, bakery.ThirdPartyInfo{PublicKey: bakery.PublicKey{Key: bakery.Key(key)}, Version: bakery.LatestVersion})
	return s, nil
}
