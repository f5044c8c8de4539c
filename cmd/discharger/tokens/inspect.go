package tokens

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/wire"
)

func inspectCommand() command.Command {
	return command.Command{
		Name: "inspect", Args: "[flags] [file]", Short: "Show the contents of a macaroon, bundle, session file, token or caveat.", Max: 1,
		Example: `discharger inspect alice.json
discharger inspect --open --config discharger.yaml access`,
		Long: `
Reads one of them from a file or standard input, and detects which it is. Access
tokens of a gateway (dga_, dgb_) are macaroons and bundles; its refresh tokens
(dgr_) are encrypted.
Nothing is verified, and no secret is printed. With --open, the service's keys and
configuration open the caveat, and the session in it is printed.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			in := inspection{t: t}
			options := setup.ConfigFlags(t, f)
			open := f.Bool("open", false, "open the caveat, with the service's keys")
			return func(_ context.Context, args []string) error {
				data, err := t.Input(args)
				if err != nil {
					return err
				}
				if *open {
					if in.opener, err = openOpener(options); err != nil {
						return err
					}
				}
				return in.show(data)
			}
		},
	}
}

func openOpener(options *config.Options) (*caveat.Opener, error) {
	cfg, err := setup.LoadConfig(options)
	if err != nil {
		return nil, err
	}
	keys, err := setup.Keys(cfg)
	if err != nil {
		return nil, err
	}
	return setup.Opener(cfg, keys)
}

// inspection is one run of inspect.
type inspection struct {
	t      *command.Terminal
	opener *caveat.Opener // nil: caveats stay closed
}

// show detects the kind of data and prints it. The order matters: a refresh token has
// the form of a bundle, and so has an access macaroon.
func (in *inspection) show(data []byte) error {
	text := string(data)
	if s, err := parseSession(data); err == nil {
		return in.session(s)
	}
	if data[0] == '{' {
		return in.access(data)
	}
	for _, prefix := range []string{token.PrefixHeld, token.PrefixRotate} {
		if bundle, ok := strings.CutPrefix(text, prefix); ok {
			in.printf("access token of a gateway")
			return in.bundle(bundle)
		}
	}
	if strings.HasPrefix(text, token.PrefixRefresh) {
		in.printf("refresh token of a gateway, encrypted")
		return nil
	}
	if _, err := client.ParseRefreshToken(text); err == nil {
		return in.token(text)
	}
	if _, err := bundle.Parse(text); err == nil {
		return in.bundle(text)
	}
	// A caveat of version 1 is text in base64 itself, of a JSON object.
	id, err := wire.DecodeBase64(text)
	if err != nil {
		return errors.New("inspect: not a macaroon, bundle, session file, refresh token or caveat")
	}
	if id[0] == '{' {
		id = data
	}
	return in.caveat(id)
}

func (in *inspection) printf(format string, args ...any) { fmt.Fprintf(in.t.Out, format+"\n", args...) }

func (in *inspection) session(s *savedSession) error {
	in.printf("session file of %s", command.Quoted(s.Service))
	if s.RequestID != "" {
		in.printf("a refresh is in progress, or its answer was lost")
	}
	if err := in.show([]byte(cmp.Or(s.Bundle, s.Access))); err != nil || s.RefreshToken == "" {
		return err
	}
	return in.show([]byte(s.RefreshToken))
}

// access shows an access macaroon in JSON by way of its text.
func (in *inspection) access(data []byte) error {
	a, err := client.ParseAccess(data)
	if err != nil {
		return err
	}
	text, err := homeserver.Minted{Macaroon: a.Macaroon}.Text()
	if err != nil {
		return err
	}
	return in.bundle(text)
}

func (in *inspection) bundle(text string) error {
	shown, err := homeserver.Inspect(text)
	if err != nil {
		return err
	}
	fmt.Fprint(in.t.Out, shown)
	if in.opener == nil {
		return nil
	}
	b, err := bundle.Parse(text)
	if err != nil {
		return err
	}
	for i := range b.Access.Caveats {
		if c := &b.Access.Caveats[i]; c.ThirdParty() {
			if err := in.caveat(c.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// token shows a refresh token. Its first two caveats are the service's; see
// package discharger for its identifier.
func (in *inspection) token(text string) error {
	b, err := bundle.Parse(text)
	if err != nil {
		return err
	}
	id := b.Access.ID
	if len(id) != 11 || id[0] != 1 {
		in.printf("macaroon without third-party caveats, and not a refresh token of this service")
	} else {
		in.printf("refresh token, %d characters, not verified\n  signed with key %x", len(text), id[1:5])
	}
	for _, c := range b.Access.Caveats {
		in.printf("  %s", command.Quoted(string(c.ID)))
	}
	return nil
}

// caveat prints the condition that is sealed in a caveat, without the root key.
func (in *inspection) caveat(id []byte) error {
	if in.opener == nil {
		in.printf("caveat, %d bytes, sealed; --open opens it with the service's keys", len(id))
		return nil
	}
	o, err := in.opener.Open(id)
	if err != nil {
		return err
	}
	in.printf("caveat, version %d, sealed by %s with key %s", o.Version, command.Quoted(o.Homeserver), o.HomeserverKey)
	c, err := caveat.ParseCondition(o.Condition)
	if err != nil {
		return err
	}
	in.printf("  session  %s", c.Session)
	in.printf("  user     %s", command.Quoted(c.User))
	in.printf("  device   %s", command.Quoted(c.Device))
	in.printf("  minted   %s", time.UnixMilli(c.Minted).UTC().Format(time.RFC3339))
	in.printf("  mode     %s", c.Mode)
	if c.Policy != "" {
		in.printf("  policy   %s", command.Quoted(c.Policy))
	}
	if c.MaxTTL > 0 {
		in.printf("  max ttl  %v", c.MaxTTL)
	}
	if c.Expires > 0 {
		in.printf("  expires  %s", time.UnixMilli(c.Expires).UTC().Format(time.RFC3339))
	}
	for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
		in.printf("  label    %s", command.Quoted(k+"="+c.Labels[k]))
	}
	return nil
}
