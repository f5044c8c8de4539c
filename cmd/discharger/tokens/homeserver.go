package tokens

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
)

// keyFlag declares the flag for the homeserver's key file.
func keyFlag(f *flag.FlagSet) *string {
	return f.String("key", "", "key `file` of the homeserver; discharger keys new --kind homeserver makes one")
}

func openHomeserver(path string, now func() time.Time) (*homeserver.Homeserver, error) {
	if path == "" {
		return nil, command.Usagef("the homeserver is missing; --key names its key file")
	}
	ring, err := setup.HomeserverKeys(path)
	if err != nil {
		return nil, err
	}
	return setup.Homeserver(ring, now)
}

func mintCommand() command.Command {
	return command.Command{
		Name: "mint", Args: "--key <file> --user <name> [flags]", Short: "As a homeserver: mint an access macaroon.",
		Example: "discharger mint --key homeserver.json --user @alice:example.org > access",
		Values:  map[string][]string{"mode": {"open", "rotate", "held"}, "caveat-version": {"1", "2", "3"}},
		Long: `
Writes it to standard output. A homeserver returns it to a client at login;
it has to be discharged for the first time within the service's activation
window. No request is made.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			p := homeserver.MintParams{Mode: caveat.ModeRotate, Labels: make(map[string]string)}
			key := keyFlag(f)
			f.StringVar(&p.User, "user", "", "`name` of the user")
			f.StringVar(&p.Device, "device", "", "`name` of the device")
			f.Func("mode", "`mode`, open, rotate or held: the parties that may fetch discharges (default rotate)", func(text string) (err error) {
				p.Mode, err = caveat.ParseMode(text)
				return err
			})
			f.StringVar(&p.Policy, "policy", "", "`name` of the policy that applies")
			f.DurationVar(&p.MaxTTL, "max-ttl", 0, "longest `duration` of a discharge")
			ends := f.Duration("expires", 0, "`duration` after which the session ends")
			f.Func("label", "`key=value` for policies; repeatable", func(text string) error {
				k, v, ok := strings.Cut(text, "=")
				if !ok {
					return errors.New("want key=value")
				}
				p.Labels[k] = v
				return nil
			})
			version := f.Int("caveat-version", 2, "encoding of the caveat: 1, 2 or 3")
			out := f.StringP("output", "o", "", "`file` to make, instead of standard output")
			return func(context.Context, []string) error {
				if p.User == "" {
					return command.Usagef("--user is missing")
				}
				h, err := openHomeserver(*key, t.Now)
				if err != nil {
					return err
				}
				if *ends != 0 {
					p.Expires = t.Now().Add(*ends)
				}
				p.Version = caveat.Version(*version)
				return mint(t, h, p, *out)
			}
		},
	}
}

func mint(t *command.Terminal, h *homeserver.Homeserver, p homeserver.MintParams, out string) error {
	m, err := h.Mint(p)
	if err != nil {
		return err
	}
	text, err := m.Text()
	if err != nil {
		return err
	}
	if err := t.Output(out, text); err != nil {
		return err
	}
	t.Say("minted for %s, mode %s, session %s", p.User, p.Mode, m.Session)
	return nil
}

func verifyCommand() command.Command {
	return command.Command{
		Name: "verify", Args: "--key <file> [flags] [bundle or session file]", Short: "As a homeserver: verify a bundle.", Max: 1,
		Example: "discharger verify --key homeserver.json alice.json",
		Long: `
Reads a bundle or a session file, from a file or standard input. No request is made:
a bundle is valid until it expires. Exit code 1: not accepted.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			key := keyFlag(f)
			var from netip.Addr
			f.TextVar(&from, "ip", netip.Addr{}, "`address` of the client")
			return func(ctx context.Context, args []string) error {
				h, err := openHomeserver(*key, t.Now)
				if err != nil {
					return err
				}
				data, err := t.Input(args)
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

func printIdentity(t *command.Terminal, id homeserver.Identity) {
	fmt.Fprintf(t.Out, "accepted\n  user     %s\n", command.Quoted(id.User))
	if id.Device != "" {
		fmt.Fprintf(t.Out, "  device   %s\n", command.Quoted(id.Device))
	}
	fmt.Fprintf(t.Out, "  session  %s\n  mode     %s\n", id.Session, id.Mode)
	if id.Mode == caveat.ModeRotate {
		fmt.Fprintf(t.Out, "  epoch    %d\n", id.Epoch)
	}
	fmt.Fprintf(t.Out, "  expires  %s, %v from now\n", id.Expires.Format(time.RFC3339), id.Expires.Sub(t.Now()).Round(time.Second))
}
