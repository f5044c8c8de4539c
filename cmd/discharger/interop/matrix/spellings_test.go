package matrix

import (
	"fmt"
	"net/url"
	"strings"
)

// bypass is a request with the homeserver's own access token in a place or spelling
// that a gateway may overlook.
type bypass struct {
	name string
	head string // request line and header, without the empty line; Host and Connection are added
	body string
}

// contentTypes are headers that make some parser read a body as a form. Each is one or
// more whole lines.
var contentTypes = []string{
	"Content-Type: application/x-www-form-urlencoded",
	"Content-Type: application/x-www-form-urlencoded;a=1;a=2",
	"Content-Type: application/x-www-form-urlencoded; charset=utf-8",
	"Content-Type: application/x-www-form-urlencoded;a*0=x;a*0=y",
	"Content-Type: application/x-www-form-urlencoded;a*0=x;a*1=y",
	"Content-Type: application/x-www-form-urlencoded;a*=utf-8''x",
	"Content-Type: application/x-www-form-urlencoded;",
	"Content-Type: application/x-www-form-urlencoded;;",
	"Content-Type: application/x-www-form-urlencoded;a",
	"Content-Type: application/x-www-form-urlencoded;=",
	"Content-Type: application/x-www-form-urlencoded;\"",
	"Content-Type: application/x-www-form-urlencoded;a=\"x",
	"Content-Type: application/x-www-form-urlencoded;a=\"x;b=\"",
	"Content-Type: application/x-www-form-urlencoded;a=\"\\\"\"",
	"Content-Type: application/x-www-form-urlencoded,",
	"Content-Type: application/x-www-form-urlencoded, application/json",
	"Content-Type: application/json, application/x-www-form-urlencoded",
	"Content-Type: application/x-www-form-urlencoded application/json",
	"Content-Type: application/json; application/x-www-form-urlencoded",
	"Content-Type: application/x-www-form-urlencoded (a comment)",
	"Content-Type: (a comment) application/x-www-form-urlencoded",
	"Content-Type: application/(a comment)x-www-form-urlencoded",
	"Content-Type: application /x-www-form-urlencoded",
	"Content-Type: application/ x-www-form-urlencoded",
	"Content-Type: APPLICATION/X-WWW-FORM-URLENCODED",
	"Content-Type: Application/X-Www-Form-Urlencoded;a=1;a=2",
	"Content-Type: \xa0application/x-www-form-urlencoded",
	"Content-Type: application/x-www-form-urlencoded\xa0",
	"Content-Type: \xc2\xa0application/x-www-form-urlencoded",
	"Content-Type: application/x-www-form-urlencoded\xc2\xa0",
	"Content-Type: \x85application/x-www-form-urlencoded",
	"Content-Type: application/x-www-form-urlencoded\x85",
	"Content-Type: application/x-www-form-urlencoded\x1c",
	"Content-Type: \x1fapplication/x-www-form-urlencoded",
	"Content-Type: application/x-www-form-urlencoded\x0b",
	"Content-Type: application/x-www-form-urlencoded\x0c",
	"Content-Type:\tapplication/x-www-form-urlencoded\t",
	"Content-Type:application/x-www-form-urlencoded",
	"Content-Type : application/x-www-form-urlencoded",
	"content-type: application/x-www-form-urlencoded",
	"CONTENT-TYPE: application/x-www-form-urlencoded",
	"Content_Type: application/x-www-form-urlencoded",
	"Content-Type: application/json\r\nContent-Type: application/x-www-form-urlencoded",
	"Content-Type: application/x-www-form-urlencoded\r\nContent-Type: application/json",
	"Content-Type: application/x-www-form-urlencoded\r\nContent-Type: application/x-www-form-urlencoded",
	"Content-Type: application/json\r\ncontent-type: application/x-www-form-urlencoded",
	"Content-Type:\r\n application/x-www-form-urlencoded",
	"Content-Type: application/json;\r\n\tapplication/x-www-form-urlencoded",
	"X: y\r\n\tz\r\nContent-Type: application/x-www-form-urlencoded",
	"Content-Type: =?utf-8?q?application/x-www-form-urlencoded?=",
	"Content-Type: =?utf-8?Q?application/x-www-form-urlencoded?=",
	"Content-Type: =?us-ascii?q?application=2Fx-www-form-urlencoded?=",
	"Content-Type: =?utf-8?b?YXBwbGljYXRpb24veC13d3ctZm9ybS11cmxlbmNvZGVk?=",
	"Content-Type: =?utf-8?q?application/?= =?utf-8?q?x-www-form-urlencoded?=",
	"Content-Type: application/=?utf-8?q?x-www-form-urlencoded?=",
	"Content-Type: =?utf-8?q?application?=/x-www-form-urlencoded",
	"Content-Type: \"application/x-www-form-urlencoded\"",
	"Content-Type: application/\"x-www-form-urlencoded\"",
	"Content-Type: <application/x-www-form-urlencoded>",
	"Content-Type: application/x-www-form-urlencoded\\",
	"Content-Type: application/x-www-form-urlencoded/",
	"Content-Type: application/x-www-form-urlencoded%20",
	"Content-Type: application/x-url-encoded",
	"Content-Type: application/x-www-form-urlencoded+json",
	"Content-Type: application/json+x-www-form-urlencoded",
	"Content-Type: */*",
	"Content-Type: ",
	"Content-Encoding: identity\r\nContent-Type: application/x-www-form-urlencoded",
	"Content-Encoding: gzip\r\nContent-Type: application/x-www-form-urlencoded",
	"Content-Disposition: form-data\r\nContent-Type: application/x-www-form-urlencoded",
	"Expect: 100-continue\r\nContent-Type: application/x-www-form-urlencoded",
	"X-HTTP-Method-Override: GET\r\nContent-Type: application/x-www-form-urlencoded",
	"Content-Type: application/json",
	"X: y",
}

// formBypasses returns requests with the token in a body. The body is a form and a
// JSON object at once, so that routes that take JSON answer too.
func formBypasses(token string) (all []bypass) {
	polyglot := `{"device_keys":{},"x":"&access_token=` + token + `&y="}`
	form := "access_token=" + token
	const query, upload = "POST /_matrix/client/v3/keys/query", "POST /_matrix/media/v3/upload"
	add := func(line, header, content string, chunked bool) {
		b := bypass{name: fmt.Sprintf("%s, %q, chunked %v", line, header, chunked), head: line + " HTTP/1.1\r\n" + header, body: content}
		if chunked {
			b.head += "\r\nTransfer-Encoding: chunked"
			b.body = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(content), content)
		} else {
			b.head += fmt.Sprintf("\r\nContent-Length: %d", len(content))
		}
		all = append(all, b)
	}
	for i, header := range contentTypes {
		add(query, header, polyglot, i%2 == 1)
		if i%3 == 0 {
			add(query, header, polyglot, i%2 == 0)
		}
		add(upload, header, form, i%2 == 0)
	}
	boundary := "Content-Type: multipart/form-data; boundary=b"
	part := "--b\r\nContent-Disposition: form-data; name=\"access_token\"\r\n\r\n" + token + "\r\n--b--\r\n"
	for _, line := range []string{query, upload} {
		add(line, boundary, part, false)
		add(line, boundary, part, true)
		add(line, "Content-Type: multipart/form-data; boundary=b; boundary=c", part, false)
		add(line, "Content-Type: Multipart/Form-Data; boundary*0=b", part, false)
		add(line, "Content-Type: multipart/mixed; boundary=b", part, false)
	}
	for _, name := range []string{"%61ccess_token", "access%5ftoken", "access_token[]", "access_token%00", "ACCESS_TOKEN", "+access_token", "a=b;access_token"} {
		add(query, contentTypes[0], `{"device_keys":{},"x":"&`+name+`=`+token+`&y="}`, false)
		add(upload, contentTypes[0], name+"="+token, false)
	}
	return all
}

// otherBypasses returns requests with the token in a header or a query.
func otherBypasses(token string) (all []bypass) {
	const whoami = "/_matrix/client/v3/account/whoami"
	for _, header := range []string{
		"Authorization: Bearer " + token, "authorization: Bearer " + token, "AUTHORIZATION: Bearer " + token, "Authorization: bearer " + token,
		"Authorization: BEARER " + token, "Authorization:Bearer " + token, "Authorization:\tBearer " + token, "Authorization: Bearer  " + token,
		"Authorization: Bearer\t" + token, "Authorization: Bearer " + token + " ", "Authorization: Bearer " + token + "\t", "Authorization : Bearer " + token,
		"Authorization: \xa0Bearer " + token, "Authorization: Bearer " + token + "\xa0", "Authorization: Bearer\xa0" + token, "Authorization: Bearer " + token + "\x0b",
		"Authorization: Bearer \"" + token + "\"", "Authorization: Bearer " + token + ",", "Authorization: Bearer dga_x\r\nAuthorization: Bearer " + token,
		"Authorization: Bearer " + token + "\r\nAuthorization: Bearer dga_x", "Authorization:\r\n Bearer " + token, "Authorization: Bearer\r\n " + token,
		"Authorization: Basic eDp5\r\nAuthorization: Bearer " + token, "Authorization: Bearer=" + token, "Authorization: =?utf-8?q?Bearer_" + token + "?=",
		"Proxy-Authorization: Bearer " + token, "X-Access-Token: " + token, "Cookie: access_token=" + token, "Authorization_: Bearer " + token,
	} {
		all = append(all, bypass{name: fmt.Sprintf("%q", strings.ReplaceAll(header, token, "T")), head: "GET " + whoami + " HTTP/1.1\r\n" + header})
	}
	for _, query := range []string{
		"access_token=T", "access_token=T&x", "x;access_token=T", "x=y&access_token=T", "%61ccess_token=T", "access%5ftoken=T", "access%5Ftoken=T", "access_token%00=T",
		"+access_token=T", "access_token+=T", "access_token[]=T", "ACCESS_TOKEN=T", "access_token=&access_token=T", "access_token=T&access_token=", "access_token=T#",
		"&access_token=T", "&&access_token=T", ";access_token=T", "?access_token=T", "x?access_token=T", "x%26access_token=T", "%3faccess_token=T", "access_token%3dT",
		"access_token=%20T", "access_token=T%20", "access_token=T%00", "access_token==T", "%2561ccess_token=T", "a%63cess_token=T&access_token=dga_x",
		"access_token=dga_x&a%63cess_token=T", "access_token=T;x", "access_token=T\t", "\xc2\xa0access_token=T",
	} {
		query = strings.ReplaceAll(query, "T", url.QueryEscape(token))
		all = append(all, bypass{name: fmt.Sprintf("query %q", query), head: "GET " + whoami + "?" + query + " HTTP/1.1\r\nAccept: */*"})
	}
	for _, path := range []string{
		"/_synapse/client/v1/config/federation_whitelist", "/_matrix/client/versions/../v3/account/whoami", "/_matrix/client/r0/account/whoami",
		"/_matrix/client/unstable/account/whoami", "/_matrix/client/v3/joined_rooms", "/_matrix/media/v3/config", "/_matrix/client/v1/media/config",
		"/_matrix/client/unstable/org.example/none", "/_synapse/admin/v1/server_version",
	} {
		all = append(all, bypass{name: path, head: "GET " + path + " HTTP/1.1\r\nAuthorization: Bearer " + token},
			bypass{name: path + " with a query", head: "GET " + path + "?access_token=" + token + " HTTP/1.1\r\nAccept: */*"})
	}
	return all
}

// refreshBypasses returns requests with the homeserver's own refresh token.
func refreshBypasses(token string) (all []bypass) {
	type request struct{ path, header, body string }
	const right, jsonType = "/_matrix/client/v3/refresh", "Content-Type: application/json"
	plain := `{"refresh_token":"` + token + `"}`
	requests := []request{
		{right, jsonType, plain}, {"/_matrix/client/r0/refresh", jsonType, plain}, {"/_matrix/client/unstable/refresh", jsonType, plain},
		{"/_matrix/client/v1/refresh", jsonType, plain}, {"/_matrix/client/unstable/org.matrix.msc2918/refresh", jsonType, plain}, {right + "?x=y", jsonType, plain},
		{right, "X: y", plain}, {right, "Content-Type: text/plain", plain}, {right, contentTypes[0], plain}, {right, contentTypes[0], "refresh_token=" + token},
		{right, jsonType, " \t\r\n" + plain}, {right, jsonType, plain + "\n"}, {right, jsonType, "\xef\xbb\xbf" + plain},
		{right, jsonType, `{"refresh_token":"dgr_x","refresh_token":"` + token + `"}`}, {right, jsonType, `{"refresh_token":"` + token + `","refresh_token":"dgr_x"}`},
		{right, jsonType, `{"refresh_\u0074oken":"` + token + `"}`}, {right, jsonType, `{"refresh_token":"\u0073` + token[1:] + `"}`},
		{right, jsonType, `{"REFRESH_TOKEN":"` + token + `"}`}, {right, jsonType, `{"refresh_token":["` + token + `"]}`}, {right, jsonType, `[` + plain + `]`},
		{right, jsonType, `{"refresh_token":" ` + token + `"}`}, {right, jsonType, `{"refresh_token":"` + token + `\u0000"}`}, {right, jsonType, plain + plain},
		{right, "Content-Type: application/json; charset=utf-16", plain}, {right + "?refresh_token=" + token, jsonType, "{}"},
		{"/_matrix/client/v3/tokenrefresh", jsonType, plain},
	}
	for _, r := range requests {
		head := fmt.Sprintf("POST %s HTTP/1.1\r\n%s\r\nContent-Length: %d", r.path, r.header, len(r.body))
		all = append(all, bypass{name: fmt.Sprintf("%s %q", r.path, strings.ReplaceAll(r.body, token, "T")), head: head, body: r.body})
	}
	return all
}
