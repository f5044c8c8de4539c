package sessions

import (
	"cmp"
	"context"
	"fmt"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/wire"
)

// revokeSpec declares a command that ends sessions.
type revokeSpec struct {
	name, args, about, more, example string
	what                             []string // that the arguments are
	of                               revokes
}

// revokes is the scope of a revocation.
type revokes int

const (
	oneSession revokes = iota
	oneDevice
	oneUser
	everything
)

// orderFlags are the flags of a revocation.
type orderFlags struct {
	soft, devices, yes         bool
	age                        time.Duration
	except, exceptDevice, from string
}

func (o *orderFlags) declare(f *flag.FlagSet, r *revokeSpec) {
	f.BoolVar(&o.soft, "soft", false, "end softly: clients log in again and keep their encryption keys")
	switch r.of {
	case oneSession:
		f.StringVar(&o.from, "from", "", "`file` with one revocation a line, in JSON; - is standard input")
	case oneUser:
		f.StringVar(&o.exceptDevice, "except-device", "", "`device` to except")
		f.BoolVar(&o.devices, "devices", false, "except sessions without a device")
		fallthrough
	case oneDevice:
		f.DurationVar(&o.age, "age", 0, "except sessions that were activated in the last `duration`")
		f.StringVar(&o.except, "except", "", "id of a `session` to except")
	case everything:
		f.BoolVar(&o.yes, "yes", false, "confirm the revocation")
	}
}

// entry makes the revocation of the arguments.
func (o *orderFlags) entry(of revokes, args []string) (e wire.RevokeEntry, err error) {
	e.RevokeOptions = wire.RevokeOptions{Soft: o.soft, Age: o.age, ExceptDevice: o.exceptDevice, Devices: o.devices}
	if o.age < 0 || o.age > wire.MaxAge {
		return e, command.Usagef("--age is from 0 to %v", wire.MaxAge)
	}
	if o.except != "" {
		if e.Except, err = sessionID(o.except); err != nil {
			return e, err
		}
	}
	if of == everything {
		return e, nil
	}
	e.User = args[0]
	switch of {
	case oneSession:
		if e.Session, err = sessionID(args[1]); err != nil {
			return e, err
		}
	case oneDevice:
		if e.Device = args[1]; e.Device == "" {
			return e, command.Usagef("the device is empty")
		}
	}
	if err := e.Check(); err != nil {
		return e, command.Usagef("%v", err)
	}
	return e, nil
}

func (r revokeSpec) command() command.Command {
	return command.Command{
		Name: r.name, Args: r.args, Short: r.about, Long: r.more + r.aboutResult() + aboutSessions, Example: r.example, Max: len(r.what),
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			var h homeserverFlags
			var o orderFlags
			h.declare(t, f)
			o.declare(f, &r)
			return func(ctx context.Context, args []string) error {
				switch {
				case o.from != "" && len(args) > 0:
					return command.Usagef("with --from, the file has the revocations, and arguments are not allowed")
				case o.from != "" && o.soft:
					return command.Usagef(`with --from, each line of the file has its "kind"`)
				case o.from == "" && len(args) < len(r.what):
					return command.Usagef("the %s is missing", r.what[len(args)])
				case r.of == everything && !o.yes:
					return command.Usagef("this logs out every user: --yes confirms it")
				}
				return r.run(ctx, t, &h, &o, args)
			}
		},
	}
}

// aboutResult describes the output of a revocation.
func (r *revokeSpec) aboutResult() string {
	if r.of == everything {
		return ""
	}
	return `

Prints the number of sessions that it ended. It fails if the name is unknown, and
prints names like it. Sessions by that name that were minted before and are not
activated yet are revoked in any case.`
}

func (r *revokeSpec) run(ctx context.Context, t *command.Terminal, h *homeserverFlags, o *orderFlags, args []string) error {
	if o.from != "" {
		client, _, err := h.client(t)
		if err != nil {
			return err
		}
		return revokeFrom(t, ctx, client, o.from)
	}
	e, err := o.entry(r.of, args)
	if err != nil {
		return err
	}
	var names namesake
	if names.client, names.homeserver, err = h.client(t); err != nil {
		return err
	}
	if r.of == everything {
		if err := names.client.RevokeHomeserver(ctx, e.RevokeOptions); err != nil {
			return err
		}
		t.Say("revoked: all sessions of the homeserver that were minted before")
		return nil
	}
	if err := names.excepted(ctx, &e); err != nil {
		return err
	}
	done, err := revokeEntry(ctx, names.client, &e)
	if err != nil {
		return err
	}
	return sayRevoked(t, ctx, &names, &e, done)
}

// revokeEntry makes one revocation.
func revokeEntry(ctx context.Context, c *client.Client, e *wire.RevokeEntry) (wire.Revoked, error) {
	switch {
	case e.Session != caveat.SessionID{}:
		return c.RevokeSession(ctx, e.User, e.Session, e.RevokeOptions)
	case e.Device != "":
		return c.RevokeDevice(ctx, e.User, e.Device, e.RevokeOptions)
	}
	return c.RevokeUser(ctx, e.User, e.RevokeOptions)
}

// sayRevoked prints the effect of a revocation. Without effect, an unknown name is an
// error that has the names like it.
func sayRevoked(t *command.Terminal, ctx context.Context, names *namesake, e *wire.RevokeEntry, done wire.Revoked) error {
	later := ""
	if done.Marked {
		later = "; logins from before that are not activated yet are revoked too"
	}
	if done.Ended == 0 {
		like, err := names.like(ctx, e, done.Known)
		switch {
		case err != nil:
			return fmt.Errorf("no session ended now%s; search for names like it: %w", later, err)
		case like != "" || !done.Known:
			return unknownName(e, like, later)
		}
	}
	t.Say("revoked: %s ended now%s", plural(done.Ended, "session"), later)
	return nil
}

func plural(n int, what string) string {
	switch n {
	case 0:
		return "no " + what
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// unknownName returns the error of a revocation whose name is unknown.
func unknownName(e *wire.RevokeEntry, like, later string) error {
	like = cmp.Or(like, "no name is like it")
	user := command.Quoted(e.User)
	switch {
	case e.Session != caveat.SessionID{}:
		return fmt.Errorf("session %s of %s did not end: %s%s", e.Session, user, like, later)
	case e.Device != "":
		return fmt.Errorf("no session of device %s of %s ended: %s%s", command.Quoted(e.Device), user, like, later)
	}
	return fmt.Errorf("no session of user %s ended: %s%s", user, like, later)
}

func sessionID(text string) (caveat.SessionID, error) {
	id, err := caveat.ParseSessionID(text)
	if err != nil {
		return id, command.Usagef("%s is not the id of a session: %v", command.Quoted(text), err)
	}
	if id == (caveat.SessionID{}) {
		return id, command.Usagef("%s is not the id of a session: it is zero", command.Quoted(text))
	}
	return id, nil
}

func revokeCommand() command.Command {
	return revokeSpec{
		name: "sessions revoke", args: "[flags] <user> <session>, or --from <file>", about: "As a homeserver: end one session of a user, or several.",
		example: `discharger sessions revoke --key homeserver.json @alice:example.org 7JxMokoUOnazjSAKJrhbOw
discharger sessions revoke --key homeserver.json --from revocations.jsonl`,
		more: `
Ends the session, also before its first discharge. A session that has ended already
is no error.

With --from it makes the revocations in a file, one a line, and writes a line for
each. A line has a session, a device, or a user:

  {"user":"@a:example.org","session":"7Jx…"}
  {"user":"@a:example.org","device":"PHONE","kind":"soft"}
  {"user":"@a:example.org","except_device":"PHONE","age":60000}`,
		what: []string{"user", "session"}, of: oneSession,
	}.command()
}

func revokeUserCommand() command.Command {
	return revokeSpec{
		name: "sessions revoke-user", args: "[flags] <user>", about: "As a homeserver: end all sessions of a user.",
		example: "discharger sessions revoke-user --key homeserver.json --except-device PHONE @alice:example.org",
		more: `
Ends the sessions that were minted before, with a first discharge or without, except
those that the flags exempt.`,
		what: []string{"user"}, of: oneUser,
	}.command()
}

func revokeDeviceCommand() command.Command {
	return revokeSpec{
		name: "sessions revoke-device", args: "[flags] <user> <device>", about: "As a homeserver: end the sessions of a user's device.",
		example: "discharger sessions revoke-device --key homeserver.json @alice:example.org PHONE",
		more: `
Ends the session that "discharger sessions list" shows for the device, and those
minted for it before without a first discharge.`,
		what: []string{"user", "device"}, of: oneDevice,
	}.command()
}

func revokeAllCommand() command.Command {
	return revokeSpec{
		name: "sessions revoke-all", args: "--yes [flags]", about: "As a homeserver: end all sessions of all its users.",
		example: "discharger sessions revoke-all --key homeserver.json --yes",
		more: `
Every user has to log in again. The number of sessions that ended is not printed.`,
		of: everything,
	}.command()
}
