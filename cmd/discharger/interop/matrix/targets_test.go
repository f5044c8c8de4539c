package matrix

import (
	"slices"
	"strings"
)

// tokenPaths are paths whose answers contain tokens. All spellings of the first are
// sent, and some of the others.
var tokenPaths = []string{
	"/_matrix/client/v3/login",
	"/_matrix/client/v3/register",
	"/_matrix/client/v3/refresh",
	"/_matrix/client/unstable/org.matrix.msc2918/refresh",
	"/_synapse/admin/v1/register",
	"/_synapse/client/login",
}

// narrowRoom is the room of a narrowed token.
const narrowRoom = "!room:localhost"

// pathPrefixes are put before a path.
var pathPrefixes = []string{
	"http://host", "HTTP://HOST", "https://user@host", "http://host:80", "http:", "//host", "/", "/.", "/..", "/x/..", "/x/../..", "/./.", "/%2e",
	"/%2E%2e", "/x/%2e%2e", "/x/.%2e", "/x%2f..", "/x/..%2f", "/%2f", "/%5c", "\\", "/\\", "/;", "/;x=y", "/%20", "/x/..;", "/x/..;y", "?", "#", "*",
	"host:80", "/%00", "/x%00", "\t", "/%09", "/%c0%ae%c0%ae", "/_matrix/media/../..", "/_matrix/federation/v1/..%2f..%2f..",
	"/_matrix/federation/../..", "/_matrix/key/%2e%2e/..", "/_synapse/mas/../..",
}

// pathSuffixes are put behind a path.
var pathSuffixes = []string{
	"#x", "#", "%23x", "%23", "#/x", "?#x", "%3fx", "%3f", "/", "//", "/.", "/..", "/x/..", "/x/../", "/%2e", "/%2e/", "/x/%2e%2e", "/x%2f..", "%2f",
	"%2f%2f", "%2f.", ";", ";x=y", ";/", "%3b", "%3bx", "%00", "%00x", "\x00", "%0a", "%0d", "%0d%0ax:y", "\t", "%09", "%20", "%20%20", ".", "%2e", "..",
	"\\", "\\x\\..", "%5c", "%5cx%5c..", "%c0%af", "%ef%bc%8f", "\xff", "%ff", "\xc2\xa0", "%c2%a0", "%a0", "%7f", "\x7f", "+", "%252f", "%252e",
	"%253b", "%2523", "%2500", "%", "%z", "%2", ":", ".json", "%u002f", "/%", "?%", "%3b/..%2f", "/;", "/;x/",
}

// segmentsUp lead one segment up, for some parser.
var segmentsUp = []string{
	"/..", "/%2e%2e", "/.%2e", "/%2e.", "%2f..", "/..%2f.", "/..;", "/..;x=y", "/..%3b", "\\..", "%5c..", "/..%5c.", "/%252e%252e", "%252f..",
	"/%25252e%25252e", "/..%00", "/..%09", "/..%20", "/..%0a", "/..%23", "/..%3f", "/%c0%ae%c0%ae", "/．．", "/..\t", "/. .", "/...", "//..", "/./..", "/x/../..",
	"/state/..%2f..", "/send/x/%2e%2e%2f%2e%2e%2f..", "/state/x/..%2f..%2f..", "/event/..%2f..", "/context/%2e%2e%2f..", "/relations/x/..%5c..%5c..",
}

// idSuffixes are put behind the identifier of a room.
var idSuffixes = []string{
	"%2f..%2f!other:localhost", "%2f..%2f..%2fsync%3f", "%2f..%2f..%2fsync%23", ";/../!other:localhost", "%00", "%00/../!other:localhost", "%20", "%2f", ".", "?", "#",
	"%252f..%252f!other:localhost", "%5c..%5c!other:localhost", "/..%2f..%2fsync%3fx=", "%0a",
}

// otherEscapes have the room in the path or the query, or no room.
var otherEscapes = []string{
	"/_matrix/client/v3/rooms/!other:localhost/../" + narrowRoom + "/messages", "/_matrix/client/v3/rooms/!other:localhost%2f..%2f" + narrowRoom + "/messages",
	"/_matrix/client/v3/rooms/!other:localhost/%2e%2e/" + narrowRoom + "/messages", "/_matrix/client/v3/rooms/!ROOM:LOCALHOST/messages",
	"/_matrix/client/v3/rooms/!other:localhost%00" + narrowRoom + "/messages", "/_matrix/client/v3/rooms/!other:localhost%23/../" + narrowRoom + "/messages",
	"/_matrix/client/v3/rooms/%21room%3alocalhost/messages", "/_matrix/client/v3/rooms/%2521room%253alocalhost/messages", "/_matrix/client/v3//rooms/" + narrowRoom + "/messages",
	"/_matrix/client/v3/sync?x=/rooms/" + narrowRoom + "/messages", "/_matrix/client/v3/sync#/rooms/" + narrowRoom + "/messages",
	"/_matrix/client/v3/sync;/rooms/" + narrowRoom + "/messages", "/_matrix/client/v3/sync%3f/../rooms/" + narrowRoom + "/messages",
	"/_matrix/client/v3/sync%00/../rooms/" + narrowRoom + "/messages", "/_matrix/client/v3/account/whoami%2f..%2f3pid", "/_matrix/client/v3/account/whoami/../3pid",
	"/_matrix/client/v3/account/whoami;/../3pid", "/_matrix/client/versions/../v3/sync", "/_matrix/client/versions%2f..%2fv3%2fsync", "/_matrix/client/v3/account/3pid%23/../whoami",
	"/_matrix/client/v1/media/download/localhost/..%2f..%2f..%2f..%2fv3%2fsync", "/_matrix/client/v1/media/download/localhost/x/..%2f..%2f..%2f..%2f..%2fv3%2fsync",
	"/_matrix/client/v1/media/download/../../../v3/sync", "/_matrix/media/v3/download/localhost/%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2fclient%2fv3%2fsync",
	"/_matrix/media/v3/download/x/../../../../client/v3/sync", "http://host/_matrix/client/v3/rooms/" + narrowRoom + "/../../sync",
	"//_matrix/client/v3/sync/../rooms/" + narrowRoom + "/messages", "/_matrix/client/v3/rooms/" + narrowRoom + "/state/x/y/../../../../../sync",
	"/_matrix/client/v3/rooms/" + narrowRoom + "/hierarchy", "/_matrix/client/v3/sync/rooms/" + narrowRoom + "/messages", "/_matrix/client/v3/rooms/" + narrowRoom + "/upgrade",
}

// spellings returns request targets that a server may read as the target of path.
func spellings(path string) []string {
	var all []string
	for _, before := range pathPrefixes {
		all = append(all, before+path)
	}
	all = append(all, "foo:"+path[1:], path[1:], "foo:"+path)
	for _, after := range pathSuffixes {
		all = append(all, path+after)
	}
	cut := strings.LastIndexByte(path, '/') + 1
	head, last := path[:cut], path[cut:]
	for _, end := range []string{
		strings.ToUpper(last), strings.ToUpper(last[:1]) + last[1:], "%" + hexByte(last[0]) + last[1:], "%" + strings.ToUpper(hexByte(last[0])) + last[1:],
		"%25" + hexByte(last[0]) + last[1:], "%2525" + hexByte(last[0]) + last[1:], "%25252525252525252525" + hexByte(last[0]) + last[1:], escapedAll(last),
		last[:1] + "%25" + hexByte(last[1]) + last[2:], strings.ToUpper(last) + "%2f", "%20" + last, " " + last, "." + last, "./" + last, "x/../" + last, "%2e%2f" + last,
		"x%2f..%2f" + last, "x%5c..%5c" + last, fullWidth(last), escapedAll(fullWidth(last)), "%c1%" + hexByte(last[0]) + last[1:], "%u00" + hexByte(last[0]) + last[1:],
		last[:2] + "%00" + last[2:], last[:2] + "\t" + last[2:], last[:2] + "%0a" + last[2:], ";" + last, "/" + last, "%2f" + last, "\\" + last, "%5c" + last,
	} {
		all = append(all, head+end)
	}
	for _, slash := range []string{"//", "/./", "/x/../", "\\", "%2f", "%5c", "%252f", "/%2e/", "/;/", ";/", "/%20/", "%c0%af", "／", "/\t", "%2F%2f"} {
		all = append(all, "/"+strings.ReplaceAll(path[1:], "/", slash), head[:cut-1]+slash+last)
	}
	for _, version := range []string{"v99", "v0", "V3", "v3;x", "%763", "v3%20", "v3%00", "api%2fv1", "unstable%2fx", "unstable/x/y", "r0%2f", ""} {
		all = append(all, strings.Replace(path, "/v3/", "/"+version+"/", 1))
	}
	for _, place := range []string{"/_Matrix/Client", "/_MATRIX/CLIENT", "/%5fmatrix/client", "/_matrix/%63lient", "/_matrix%2fclient", "/_matrix//client"} {
		all = append(all, strings.Replace(path, "/_matrix/client", place, 1))
	}
	all = append(all, strings.ToUpper(path), escapedAll(path), "/"+escapedAll(path[1:]))
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(s string) bool { return s == path })
}

// escapes returns request targets that begin in a room, and that a server may read as
// targets outside of it.
func escapes() []string {
	const in = "/_matrix/client/v3/rooms/" + narrowRoom
	var all []string
	for _, up := range segmentsUp {
		for _, to := range []string{"/../sync", "/../logout", "/!other:localhost/messages", "/..%2faccount%2fpassword", "%2f..%2fsync"} {
			all = append(all, in+up+to)
		}
	}
	for _, id := range idSuffixes {
		all = append(all, in+id+"/messages", in+id+"/state/m.room.topic/", in+id)
	}
	return append(all, otherEscapes...)
}

const hexDigits = "0123456789abcdef"

func hexByte(c byte) string { return string([]byte{hexDigits[c>>4], hexDigits[c&0xf]}) }

// escapedAll escapes every byte.
func escapedAll(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteString("%" + hexByte(s[i]))
	}
	return b.String()
}

// fullWidth replaces letters by their forms in the block of full-width characters.
func fullWidth(s string) string {
	return strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f {
			return r + 0xfee0
		}
		return r
	}, s)
}
