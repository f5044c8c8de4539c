package homeserver

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// Inspection is the content of a bundle that is readable without a key. None of it
// is verified, and none of it is secret: signatures and sealed parts are left out.
type Inspection struct {
	Characters int  // length of the text
	Compact    bool // the form; see [bundle.Bundle]

	// Ours reports whether Mint makes such identifiers. If not, the fields up to
	// Minted are zero.
	Ours    bool
	KeyID   string // of the master key, in hexadecimal
	Mode    caveat.Mode
	Session caveat.SessionID
	User    string
	Device  string
	Minted  time.Time // UTC

	Access     []InspectedCaveat   // of the access macaroon, in order
	Discharges [][]InspectedCaveat // of each discharge
}

// InspectedCaveat is one caveat.
type InspectedCaveat struct {
	ThirdParty bool
	Condition  string // of a first-party caveat
	Location   string // of a third-party caveat: its discharger
	Size       int    // of a third-party caveat's id, in bytes
}

// Inspect parses a bundle or an access macaroon, for people. It verifies nothing.
func Inspect(text string) (Inspection, error) {
	b, err := bundle.Parse(text)
	if err != nil {
		return Inspection{}, fmt.Errorf("inspect: %w", err)
	}
	in := Inspection{Characters: len(text), Compact: b.Compact, Access: inspectCaveats(&b.Access)}
	if id, ok := parseIdentifier(b.Access.ID); ok {
		who := id.identity()
		in.Ours = true
		in.KeyID = fmt.Sprintf("%x", id.key)
		in.Mode, in.Session, in.User, in.Device, in.Minted = who.Mode, who.Session, who.User, who.Device, who.Minted
	}
	for i := range b.Discharges {
		in.Discharges = append(in.Discharges, inspectCaveats(&b.Discharges[i]))
	}
	return in, nil
}

func inspectCaveats(v *rawmacaroon.Macaroon) []InspectedCaveat {
	var out []InspectedCaveat
	for i := range v.Caveats {
		c := &v.Caveats[i]
		if c.ThirdParty() {
			out = append(out, InspectedCaveat{ThirdParty: true, Location: string(c.Location), Size: len(c.ID)})
			continue
		}
		out = append(out, InspectedCaveat{Condition: string(c.ID)})
	}
	return out
}

// String returns the inspection in lines of text.
func (in Inspection) String() string {
	var b strings.Builder
	form := "standard"
	if in.Compact {
		form = "compact"
	}
	fmt.Fprintf(&b, "bundle       %d characters, %s form, not verified\n", in.Characters, form)
	if in.Ours {
		fmt.Fprintf(&b, "user         %s\n", printable(in.User))
		fmt.Fprintf(&b, "device       %s\n", printable(in.Device))
		fmt.Fprintf(&b, "session      %s\n", in.Session)
		fmt.Fprintf(&b, "mode         %s\n", in.Mode)
		fmt.Fprintf(&b, "minted       %s\n", in.Minted.Format(time.RFC3339))
		fmt.Fprintf(&b, "master key   %s\n", in.KeyID)
	} else {
		b.WriteString("identifier   of another kind: not minted by this software\n")
	}
	b.WriteString("access macaroon\n")
	writeCaveats(&b, in.Access)
	for _, caveats := range in.Discharges {
		b.WriteString("discharge\n")
		writeCaveats(&b, caveats)
	}
	if len(in.Discharges) == 0 {
		b.WriteString("no discharge\n")
	}
	return b.String()
}

func writeCaveats(b *strings.Builder, caveats []InspectedCaveat) {
	for _, c := range caveats {
		if c.ThirdParty {
			fmt.Fprintf(b, "  to be discharged by %s (%d bytes, sealed)\n", printable(c.Location), c.Size)
			continue
		}
		fmt.Fprintf(b, "  %s\n", printable(c.Condition))
	}
}

// printable returns s, quoted if a terminal would not show it literally.
func printable(s string) string {
	quoted := fmt.Sprintf("%q", s)
	if s != "" && utf8.ValidString(s) && quoted[1:len(quoted)-1] == s {
		return s
	}
	return quoted
}
