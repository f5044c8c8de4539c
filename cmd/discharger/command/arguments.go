package command

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/discharger/caveat"
)

// escape marks an argument that begins with "-" and is no flag. No argument of a
// process contains it.
const escape = "\x00"

// escapeIDs marks the ids among the arguments that begin with "-": those of sessions,
// as another maker may draw them, and those of signing keys. An argument that is the
// value of a flag stays as it is, and so does anything after "--".
func escapeIDs(root *cobra.Command, args []string) []string {
	c, _, err := root.Find(args)
	if err != nil {
		return args
	}
	escaped := make([]string, 0, len(args))
	for i, arg := range args {
		switch {
		case arg == "--":
			return append(escaped, args[i:]...)
		case strings.HasPrefix(arg, "-") && isID(arg) && !(i > 0 && takesNext(c.Flags(), args[i-1])):
			arg = escape + arg
		case arg == "-help":
			arg = "--help"
		}
		escaped = append(escaped, arg)
	}
	return escaped
}

func unescapeIDs(args []string) []string {
	for i := range args {
		args[i] = strings.TrimPrefix(args[i], escape)
	}
	return args
}

// takesNext reports whether an argument is a flag whose value is the next argument.
func takesNext(f *pflag.FlagSet, arg string) bool {
	var found *pflag.Flag
	if name, long := strings.CutPrefix(arg, "--"); long {
		found = f.Lookup(name)
	} else if name, short := strings.CutPrefix(arg, "-"); short && len(name) == 1 {
		found = f.ShorthandLookup(name)
	}
	return found != nil && found.NoOptDefVal == ""
}

// isID reports whether a text has the form of the id of a session or of a signing
// key, in base64url.
func isID(text string) bool {
	if _, err := caveat.ParseSessionID(text); err == nil {
		return true
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return err == nil && len(b) == sha256.Size
}

// flagError adds the right spelling to the error of a flag.
func flagError(c *cobra.Command, err error) error {
	path, help := pathOf(c), "see "+c.CommandPath()+" -h"
	if path != "" {
		path += ": "
	}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return Usagef("%s%v; %s", path, err, help)
	}
	dashes, name := "--", unknown.GetSpecifiedName()
	if group := unknown.GetSpecifiedShortnames(); group != "" {
		dashes, name = "-", group
	}
	name, _, _ = strings.Cut(name, "=")
	var known []string
	c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	hint := ""
	if near := yamlfile.Nearest(name, known); near != "" {
		hint = " (did you mean --" + near + "?)"
	}
	return Usagef("%sno flag %s%s%s; %s", path, dashes, name, hint, help)
}

// pathOf returns the name of a command below the program's.
func pathOf(c *cobra.Command) string {
	return strings.TrimSpace(strings.TrimPrefix(c.CommandPath(), c.Root().Name()))
}
