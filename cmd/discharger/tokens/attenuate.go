package tokens

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/rawmacaroon"
)

func attenuateCommand() command.Command {
	return command.Command{
		Name: "attenuate", Args: "[flags] [file]", Short: "Narrow an access token of a gateway, for a script.", Max: 1,
		Example: "discharger attenuate --for 24h --read-only --room '!room:example.org' token",
		Long: `
Reads an access token that begins with dga_, from a file or standard input, and
writes a narrower one. It needs no connection, and the token that was read stays
as it is. The new one ends with the session, and cannot log out, change the account
or its devices, or get other tokens. Flags are repeatable, and all of them apply.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			var a attenuation
			f.DurationVar(&a.lifetime, "for", 0, "valid for this `duration` from now, such as 24h")
			f.Func("until", "valid until this `time`, such as 2027-01-31T12:00:00Z", func(text string) (err error) {
				if a.until, err = time.Parse(time.RFC3339, text); err != nil {
					return fmt.Errorf("want a time such as 2027-01-31T12:00:00Z, got %q", text)
				}
				return nil
			})
			f.Func("ip", "only from this `address` or CIDR", a.ip)
			f.BoolVar(&a.readOnly, "read-only", false, "only to read: rooms, profiles, media; not /sync")
			f.Func("room", "only in this `room`, by its id; not /sync", func(id string) error {
				a.conditions = append(a.conditions, token.CondRoom+" "+id)
				return nil
			})
			out := f.StringP("output", "o", "", "`file` to make, instead of standard output")
			return func(_ context.Context, args []string) error { return a.run(t, args, *out) }
		},
	}
}

// attenuation is one run of attenuate.
type attenuation struct {
	lifetime   time.Duration
	until      time.Time
	readOnly   bool
	conditions []string
}

// ip reads an address or a CIDR.
func (a *attenuation) ip(text string) error {
	p, err := netip.ParsePrefix(text)
	if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
		p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if err != nil {
		return fmt.Errorf("want an address or a CIDR, got %q", text)
	}
	a.conditions = append(a.conditions, rawmacaroon.ClientIP(p))
	return nil
}

func (a *attenuation) run(t *command.Terminal, args []string, out string) error {
	switch {
	case a.lifetime < 0:
		return command.Usagef("attenuate: --for must be positive")
	case a.lifetime > 0:
		a.conditions = append(a.conditions, rawmacaroon.TimeBefore(t.Now().Add(a.lifetime).Truncate(time.Second)))
	}
	if !a.until.IsZero() {
		a.conditions = append(a.conditions, rawmacaroon.TimeBefore(a.until))
	}
	if a.readOnly {
		a.conditions = append(a.conditions, token.CondReadOnly)
	}
	if len(a.conditions) == 0 {
		return command.Usagef("attenuate: give at least one of --for, --until, --ip, --read-only and --room; see discharger attenuate -h")
	}
	text, err := t.Input(args)
	if err != nil {
		return err
	}
	narrow, err := token.Attenuate(string(text), a.conditions...)
	if err != nil {
		return err
	}
	if err := t.Output(out, narrow); err != nil {
		return err
	}
	t.Say("narrowed: %s", command.Plain(strings.Join(a.conditions, ", ")))
	return nil
}
