// Package clientname makes short names of User-Agents, for lists of sessions and for
// telling clients apart.
//
//	Mozilla/5.0 (X11; Linux x86_64; rv:140.0) … Firefox/140.0       Firefox on Linux
//	Element/1.6.20 (Google Pixel 7; Android 14; UQ1A.240105; …)     Element on Android, Google Pixel 7
//	mautrix-go/0.25.1 go/1.25                                       mautrix-go
//
// A name has the product, its platform and the model of a phone, and no versions, so
// that a client keeps its name when it is updated. It has at most [Max] bytes, is
// printable, and has no slash.
//
// Names are stored. A change of how a User-Agent is named, a newer library included,
// makes its client another one for sessions that began before. The test table holds
// the names of the clients that matter.
//
// Earlier versions of the service stored the first 40 bytes of the User-Agent
// instead. [Was] compares those with a present User-Agent.
package clientname

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"github.com/mileusna/useragent"
)

// Max is how many bytes a name has at most.
const Max = 40

// maxRead is how much of a User-Agent is read, in bytes.
const maxRead = 512

// Of returns the name of a User-Agent; empty if it has none.
func Of(userAgent string) string {
	userAgent = Cut(strings.ToValidUTF8(userAgent, "\uFFFD"), maxRead)
	var product, platform, model string
	if strings.HasPrefix(userAgent, "Mozilla/") {
		product, platform, model = browser(userAgent)
	} else {
		product, platform, model = program(userAgent)
	}
	name := clean(product)
	if name == "" && platform != "" {
		name = "Client"
	}
	if platform != "" {
		name += " on " + platform
	}
	if model = clean(model); model != "" && model != platform {
		name += ", " + model
	}
	return strings.TrimRight(Cut(name, Max), " ,")
}

// Cache holds the names of the latest User-Agents, since parsing one takes longer
// than much of a request. The zero value is ready for use. It is bounded: a User-Agent
// replaces another one of its slot. A Cache is safe for concurrent use.
type Cache struct {
	slots [slots]atomic.Pointer[named]
}

const slots = 512

// cacheSeed differs between processes, so that no client can choose the slot of another.
var cacheSeed = maphash.MakeSeed()

type named struct{ userAgent, name string }

// Of returns the name of a User-Agent, as [Of] does.
func (c *Cache) Of(userAgent string) string {
	if len(userAgent) > maxRead {
		return Of(userAgent)
	}
	slot := &c.slots[maphash.String(cacheSeed, userAgent)%slots]
	if n := slot.Load(); n != nil && n.userAgent == userAgent {
		return n.name
	}
	n := &named{userAgent, Of(userAgent)}
	slot.Store(n)
	return n.name
}

// Was reports whether a stored name is one of an earlier version for a
// User-Agent: its beginning, compared but for the versions in it.
func Was(stored, userAgent string) bool {
	userAgent = Cut(strings.ToValidUTF8(userAgent, "\uFFFD"), maxRead)
	if stored == Cut(userAgent, Max) {
		return true
	}
	if !old(stored) {
		return false
	}
	was, is := versionless(stored), versionless(userAgent)
	if len(stored) > Max-utf8.UTFMax {
		return strings.HasPrefix(is, was)
	}
	return is == was // it was not cut
}

// Stored returns the name for a stored one, which may be that of an earlier version.
func Stored(stored string) string {
	if old(stored) {
		return Of(stored)
	}
	return stored
}

// old reports whether a stored name is the beginning of a User-Agent.
func old(stored string) bool { return strings.Contains(stored, "/") }

// versionless returns a User-Agent without the characters of versions.
func versionless(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r == '.' || r == '_' {
			return -1
		}
		return r
	}, s)
}

// browser returns the parts of a name for a browser, or a program made of one.
func browser(userAgent string) (product, platform, model string) {
	ua := useragent.Parse(userAgent)
	product = ua.Name
	if ua.Version == "" { // a word of the comment
		product = "Browser"
	}
	if ua.IsIOS() || ua.IsAndroid() && ua.Device != "K" { // K hides the model
		model = ua.Device
	}
	return product, ua.OS, model
}

// program returns the parts of a name for a User-Agent of another program.
func program(userAgent string) (product, platform, model string) {
	product, rest := userAgent, ""
	if i := strings.IndexAny(userAgent, "/("); i >= 0 {
		product, rest = userAgent[:i], userAgent[i:]
	}
	_, comment, _ := strings.Cut(rest, "(") // the first one
	comment, _, _ = strings.Cut(comment, ")")
	for i, part := range strings.Split(comment, ";") {
		part = strings.TrimSpace(part)
		if platform = platformOf(part); platform != "" {
			break
		}
		if i == 0 {
			model = part
		}
	}
	if platform == "" && strings.Contains(rest, " Darwin/") {
		platform = "Apple"
	}
	if platform != useragent.Android && platform != useragent.IOS || strings.Contains(model, "/") {
		model = ""
	}
	return withoutVersion(product), platform, model
}

// platformOf returns the platform that a word of a comment names, or "".
func platformOf(word string) string {
	word = strings.ToLower(word)
	for _, p := range [...]struct{ prefix, name string }{
		{"android", useragent.Android},
		{"ios", useragent.IOS},
		{"ipados", useragent.IOS},
		{"iphone os", useragent.IOS},
		{"windows", useragent.Windows},
		{"win32", useragent.Windows},
		{"win64", useragent.Windows},
		{"macos", useragent.MacOS},
		{"mac os", useragent.MacOS},
		{"macintosh", useragent.MacOS},
		{"darwin", useragent.MacOS},
		{"linux", useragent.Linux},
		{"x11", useragent.Linux},
		{"freebsd", useragent.FreeBSD},
		{"openbsd", "OpenBSD"},
		{"cros", useragent.ChromeOS},
	} {
		if strings.HasPrefix(word, p.prefix) {
			return p.name
		}
	}
	return ""
}

// withoutVersion returns a product without the words of a version at its end.
func withoutVersion(product string) string {
	words := strings.Fields(product)
	for len(words) > 1 {
		last := strings.TrimPrefix(strings.ToLower(words[len(words)-1]), "v")
		if last == "" || last[0] < '0' || last[0] > '9' {
			break
		}
		words = words[:len(words)-1]
	}
	return strings.Join(words, " ")
}

// clean returns the printable part of a text before a slash, with single spaces.
func clean(s string) string {
	s, _, _ = strings.Cut(s, "/")
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// Cut returns the beginning of s, at most n bytes and whole characters.
func Cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) { // in the middle of one
		n--
	}
	return s[:n]
}
