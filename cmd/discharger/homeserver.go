package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
)

// loadHomeserverKeys reads a key file of a homeserver.
func loadHomeserverKeys(path string) (*keyfile.Ring, error) {
	ring, err := keyfile.Load(path, keyfile.OwnerOnly)
	if err == nil && ring.Owner != keyfile.Homeserver {
		err = fmt.Errorf("key file %s: the keys in it are the %s's", path, ring.Owner)
	}
	return ring, mark(err, errConfig)
}

// newHomeserver makes what a homeserver would make of its keys.
func newHomeserver(ring *keyfile.Ring, now func() time.Time) (*homeserver.Homeserver, error) {
	var keys homeserver.Keys
	for _, k := range ring.Of(keyfile.Root) {
		keys = append(keys, homeserver.Key{Key: k.Secret()})
	}
	var retired [][4]byte
	for _, k := range ring.RetiredOf(keyfile.Root) {
		retired = append(retired, k.ID)
	}
	return homeserver.New(homeserver.Config{
		Name: ring.Peer.Name, Location: ring.Peer.Service, Discharger: ring.Peer.ServiceKey,
		Keys: keys, Retired: retired, KeyPair: ring.Of(keyfile.Seal)[0].Pair(), Clock: now,
	})
}

// keyFlag declares the flag for the homeserver's key file.
func keyFlag(f *flag.FlagSet) *string {
	return f.String("key", "", "key `file` of the homeserver; discharger keys new --kind homeserver makes one")
}

func openHomeserver(path string, now func() time.Time) (*homeserver.Homeserver, error) {
	if path == "" {
		return nil, usagef("as which homeserver? --key names its key file")
	}
	ring, err := loadHomeserverKeys(path)
	if err != nil {
		return nil, err
	}
	return newHomeserver(ring, now)
}

func mintCommand() command {
	return command{
		name: "mint", args: "--key <file> --user <name> [flags]", about: "As a homeserver: make an access macaroon.",
		more: `
Writes it to standard output. It is what a homeserver gives a client at login;
it has to be discharged for the first time within the service's activation
window. Nothing is sent anywhere.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			p := homeserver.MintParams{Mode: caveat.ModeRotate, Labels: make(map[string]string)}
			key := keyFlag(f)
			f.StringVar(&p.User, "user", "", "whose session it is: a `name`")
			f.StringVar(&p.Device, "device", "", "the user's device: a `name`")
			f.Func("mode", "who may fetch discharges: `open|rotate|held` (default rotate)", func(text string) (err error) {
				p.Mode, err = caveat.ParseMode(text)
				return err
			})
			f.StringVar(&p.Policy, "policy", "", "`name` of the policy that applies")
			f.DurationVar(&p.MaxTTL, "max-ttl", 0, "no discharge is to live longer than `this`")
			ends := f.Duration("expires", 0, "the session ends after `this long`, whatever happens")
			f.Func("label", "`key=value` for policies; may come more than once", func(text string) error {
				k, v, ok := strings.Cut(text, "=")
				if !ok {
					return errors.New("want key=value")
				}
				p.Labels[k] = v
				return nil
			})
			version := f.Int("caveat-version", 2, "encoding of the caveat: 1, 2 or 3")
			out := f.String("o", "", "`file` to make, instead of standard output")
			return func(_ context.Context, _ []string) error {
				if p.User == "" {
					return usagef("whose session? --user names the user")
				}
				h, err := openHomeserver(*key, t.now)
				if err != nil {
					return err
				}
				if *ends != 0 {
					p.Expires = t.now().Add(*ends)
				}
				p.Version = caveat.Version(*version)
				return mint(t, h, p, *out)
			}
		},
	}
}

func mint(t *terminal, h *homeserver.Homeserver, p homeserver.MintParams, out string) error {
	m, err := h.Mint(p)
	if err != nil {
		return err
	}
	text, err := m.Text()
	if err != nil {
		return err
	}
	if err := t.output(out, text); err != nil {
		return err
	}
	t.say("minted for %s, mode %s, session %s", p.User, p.Mode, m.Session)
	return nil
}

func verifyCommand() command {
	return command{
		name: "verify", args: "--key <file> [flags] [bundle or session file]", about: "As a homeserver: check a bundle.", max: 1,
		more: `
Reads a bundle or a session file, from a file or standard input. Nobody is
asked: a bundle is good until it runs out. Exit code 1: not accepted.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			key := keyFlag(f)
			var from netip.Addr
			f.TextVar(&from, "ip", netip.Addr{}, "`address` that the request comes from")
			return func(ctx context.Context, args []string) error {
				h, err := openHomeserver(*key, t.now)
				if err != nil {
					return err
				}
				data, err := t.input(args)
				if err != nil {
					return err
				}
				bundle := string(data)
				if data[0] == '{' {
					s, err := parseSession(data)
					if err != nil {
						return err
					}
					bundle = s.Bundle
				}
				id, err := h.Verify(ctx, bundle, homeserver.Request{ClientIP: from})
				if err != nil {
					return fmt.Errorf("not accepted: %w", err)
				}
				printIdentity(t, id)
				return nil
			}
		},
	}
}

func printIdentity(t *terminal, id homeserver.Identity) {
	fmt.Fprintf(t.out, "accepted\n  user     %s\n", quoted(id.User))
	if id.Device != "" {
		fmt.Fprintf(t.out, "  device   %s\n", quoted(id.Device))
	}
	fmt.Fprintf(t.out, "  session  %s\n  mode     %s\n", id.Session, id.Mode)
	if id.Mode == caveat.ModeRotate {
		fmt.Fprintf(t.out, "  epoch    %d\n", id.Epoch)
	}
	fmt.Fprintf(t.out, "  expires  %s, %v from now\n", id.Expires.Format(time.RFC3339), id.Expires.Sub(t.now()).Round(time.Second))
}
