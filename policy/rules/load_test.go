package rules_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy/rules"
)

// load loads one rule file.
func load(t testing.TB, text string) (*rules.Set, error) {
	t.Helper()
	return rules.Load(rules.Config{FS: fstest.MapFS{"p.yaml": {Data: []byte(text)}}, Files: []string{"p.yaml"}, Offline: true, OnlyFiles: true})
}

func mustLoad(t testing.TB, text string) *rules.Set {
	t.Helper()
	set, err := load(t, text)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return set
}

// rule returns a file with one rule and this condition.
func rule(when string) string {
	return "version: 1\nnetworks: {office: [192.0.2.0/24]}\nlists: {admins: [\"@alice:example.org\"]}\npolicies:\n  p:\n    rules:\n      - name: r\n        when: " +
		when + "\n        then: deny\n    otherwise: allow\n"
}

// then returns a file with one rule and this decision.
func then(then string) string {
	return "version: 1\npolicies:\n  p:\n    rules:\n      - name: r\n        when: session.epoch > 7\n        then: " + then + "\n    otherwise: allow\n"
}

func TestInvalidFiles(t *testing.T) {
	t.Parallel()
	const head = "version: 1\npolicies:\n  p:\n"
	many := strings.Builder{}
	for i := range 201 {
		fmt.Fprintf(&many, "      - {name: r%d, when: session.epoch == %d, then: deny}\n", i, i)
	}
	dear := strings.Builder{}
	for i := range 100 {
		fmt.Fprintf(&dear, "      - {name: r%d, when: 'session.labels.exists(k, k == user.id + \"%d\")', then: deny}\n", i, i)
	}
	manyLists := strings.Builder{}
	for i := range 257 {
		fmt.Fprintf(&manyLists, "  l%d: [x]\n", i)
	}
	tests := []struct {
		name, file, place, want string
	}{
		{"empty", "", "", "file is empty"},
		{"only a comment", "# nothing\n", "", "file is empty"},
		{"malformed", "version: 1\npolicies: [\n", ":2", "not YAML"},
		{"tabs", "version: 1\npolicies:\n\tp: 1\n", ":3", "not YAML"},
		{"not UTF-8", "version: 1\npolicies: \xff\n", "", "not UTF-8"},
		{"NUL", "version: 1\npolicies: \x00\n", "", "not YAML: control characters are not allowed"},
		{"too large", "version: 1\n#" + strings.Repeat("x", 256<<10), "", "file has 262145 bytes, want at most 262144"},
		{"a list", "- version: 1\n", ":1:1", "want a mapping, got a list"},
		{"two documents", head + "    otherwise: allow\n---\nversion: 1\n", ":5:1", "a second document begins here, want one"},
		{"deeply nested", "version: 1\npolicies: " + strings.Repeat("[", 20000) + "\n", ":2", "not YAML: exceeded max depth"},
		{"no version", "policies:\n  p: {otherwise: allow}\n", ":1:1", "write version: 1"},
		{"another version", "version: 2\npolicies:\n  p: {otherwise: allow}\n", ":1:10", "version: want 1, got 2"},
		{"unknown key", "version: 1\npolicy: {}\npolicies:\n  p: {otherwise: allow}\n", ":2:1", `key "policy" is unknown; it is one of version, networks, lists, webhooks, policies`},
		{"no policies", "version: 1\n", ":1:1", `key "policies" is missing`},
		{"misspelt policies", "version: 1\npolcies: {}\n", ":2:1", `key "polcies" is unknown (did you mean policies?)`},
		{"empty policies", "version: 1\npolicies: {}\n", ":2:11", "policies: want at least one policy"},
		{"policies of the wrong type", "version: 1\npolicies: yes\n", ":2:11", `policies: want a mapping, got "yes"`},
		{"bad policy name", "version: 1\npolicies:\n  Mine!: {otherwise: allow}\n", ":3:3", "want a name of at most 64 of a-z"},
		{"policy twice", head + "    otherwise: allow\n  p:\n    otherwise: deny\n", ":5:3", `policies: key "p" is a duplicate; the first is in line 3`},
		{"number as a key", "version: 1\npolicies:\n  7: {otherwise: allow}\n", ":3:3", "policies: want a name as key, got 7"},
		{"missing otherwise", head + "    rules: []\n", ":3:3", `policies.p: key "otherwise" is missing; it decides if no condition holds; write, for instance, otherwise: allow`},
		{"empty policy", head, ":3:5", "policies.p: want a mapping, got nothing"},
		{"alias", head + "    doc: &d text\n    otherwise: allow\n", ":4:10", "doc: anchor &d is not allowed; write the value out"},
		{"alias bomb", "version: 1\nlists:\n  a: &a [x, x]\n  b: [*a, *a]\npolicies:\n  p: {otherwise: allow}\n", ":3:6", "lists.a: anchor &a is not allowed; write the value out"},
		{"alias of nothing", "version: 1\nlists:\n  b: [*a, *a]\npolicies:\n  p: {otherwise: allow}\n", "", "unknown anchor 'a' referenced"},
		{"merge key", "version: 1\npolicies:\n  p:\n    otherwise: allow\n    <<: {doc: x}\n", ":5:5", "policies.p: want a name as key, got <<"},
		{"tag", head + "    otherwise: !!str allow\n", ":4:16", "otherwise: want allow, deny, revoke, revoke_user, reauth or defer, got a value with the tag !!str"},

		{"rule of the wrong type", head + "    rules: [r]\n    otherwise: allow\n", ":4:13", `rule: want a mapping, got "r"`},
		{"too many rules", head + "    rules:\n" + many.String() + "    otherwise: allow\n", ":5:7", "policies.p.rules: want at most 200 items, got 201"},
		{"no name", head + "    rules: [{when: replay == \"fork\", then: deny}]\n    otherwise: allow\n", ":4:13", `rule: key "name" is missing`},
		{"no when", head + "    rules: [{name: r, then: deny}]\n    otherwise: allow\n", ":4:13", `rule: key "when" is missing`},
		{"no then", head + "    rules: [{name: r, when: replay == \"fork\"}]\n    otherwise: allow\n", ":4:13", `rule: key "then" is missing`},
		{"name twice", head + "    rules:\n      - {name: r, when: replay == \"fork\", then: deny}\n      - {name: r, when: replay == \"reuse\", then: deny}\n    otherwise: allow\n", ":6:16", "name: rule r is a duplicate; the first is in line 5"},
		{"named otherwise", head + "    rules:\n      - {name: otherwise, when: replay == \"fork\", then: deny}\n    otherwise: allow\n", ":5:16", "otherwise is reserved"},
		{"misspelt key of a rule", head + "    rules:\n      - {name: r, wen: replay == \"fork\", then: deny}\n    otherwise: allow\n", ":5:19", `rule: key "wen" is unknown (did you mean when?)`},

		{"boolean as a condition", rule("true"), ":8:15", "when: want a string, got true; quote it if it is one"},
		{"empty condition", rule("' '"), ":8:16", "when is empty"},
		{"condition of the wrong type", rule("user.id"), ":8:15", "when: want type bool, got string"},
		{"syntax", rule("session.epoch >"), ":8:29", "expression is incomplete"},
		{"single equals", rule(`user.id = "x"`), ":8:23", "equality is =="},
		{"and", rule(`session.epoch > 1 and session.epoch < 3`), ":8:33", "conditions are joined by &&"},
		{"single ampersand", rule(`session.epoch > 1 & session.epoch < 3`), ":8:33", "conditions are joined by &&"},
		{"or", rule(`session.epoch > 1 or session.epoch < 3`), ":8:33", "alternatives are joined by ||"},
		{"not", rule(`not request.homeserver`), ":8:15", "not is written !"},
		{"open quotes", rule(`user.id == "x`), ":8:26", "closing quote is missing"},
		{"misspelt variable", rule(`sesion.epoch > 1`), ":8:15", "variable sesion is unknown (did you mean session?)"},
		{"misspelt field", rule(`now - session.creatd > days(1)`), ":8:29", "session has no field creatd (did you mean created?)"},
		{"misspelt function", rule(`user.id.strtsWith("@")`), ":8:23", "function strtsWith is unknown (did you mean startsWith?)"},
		{"misspelt global function", rule(`dys(3) > days(1)`), ":8:15", "function dys is unknown (did you mean days?)"},
		{"misspelt list", rule(`user.id in lists.admin`), ":8:32", "list admin is unknown under lists (did you mean admins?)"},
		{"misspelt network", rule(`request.ip in networks.ofice`), ":8:38", "list ofice is unknown under networks (did you mean office?)"},
		{"types", rule(`session.epoch > "3"`), ":8:29", "> cannot take (int, string)"},
		{"duration and number", rule(`now - session.created > 90`), ":8:37", "write the number as a duration"},
		{"not a duration", rule(`now - session.created > duration("90d")`), ":8:48", "days(90) is one too"},
		{"function as a member", rule(`contains(user.id, "x")`), ":8:15", "it is written a.contains(b)"},
		{"networks are no list", rule(`networks.office.exists(n, true)`), ":8:24", "request.ip in networks.office"},
		{"bad network", rule(`request.ip in cidr("10.0.0.0/33")`), ":8:34", "invalid cidr argument"},
		{"bad zone", rule(`now.getHours("Europe/Berln") > 3`), ":8:28", "time zone: want a name"},
		{"zone of the machine", rule(`now.getHours("Local") > 3`), ":8:28", "time zone: want a name"},
		{"zone from the input", rule(`now.getHours(user.id) > 3`), ":8:33", "want a time zone in quotes"},
		{"bad window", rule(`now.during("Mo-Fr 8-18", "UTC")`), ":8:26", `hours: want a form such as 08:00-18:00, got "8-18"`},
		{"bad day", rule(`now.during("Mo-Fri 08:00-18:00", "UTC")`), ":8:26", `Sat or Sun, got "Mo"`},
		{"bad regular expression", rule(`user.id.matches("(")`), ":8:31", "regular expression is invalid"},
		{"regular expression from input", rule(`user.id.matches(session.device)`), ":8:39", "want a regular expression in quotes"},
		{"huge regular expression", rule(`user.id.matches("(a{1,100}){1,100}")`), ":8:31", "regular expression is invalid"},
		{"impossible value", rule(`replay == "retri"`), ":8:25", `replay is never "retri" (did you mean retry?)`},
		{"impossible value in a list", rule(`session.mode in ["open", "closed"]`), ":8:40", `session.mode is never "closed"; it is one of open, rotate, held`},
		{"begins with !", rule(`!(request.ip in networks.office)`), ":8:15", "when: want a string, got a value with the tag !(request.ip; text that begins with ! belongs in single quotes"},
		{"begins with a quote", rule(`"role" in session.labels`), ":6", "perhaps the expression in line 8, which belongs in single quotes"},
		{"has a colon", rule(`request.homeserver ? user.id == "a" : user.id == "b"`), ":8", "perhaps the expression in line 8"},
		{"not in", rule(`request.ip not in networks.office`), ":8:26", "around the whole condition: !(a in b)"},
		{"duration of another language", rule(`grant.ttl > 5m`), ":8:28", `a duration is written duration("5m")`},
		{"address and networks", rule(`request.ip == networks.office`), ":8:26", "request.ip in networks.office"},
		{"method of networks", rule(`networks.office.contains(request.ip)`), ":8:31", "request.ip in networks.office"},
		{"network as text", rule(`request.ip in ["10.0.0.0/8"]`), ":8:30", `for a network write request.ip in cidr("10.0.0.0/8")`},
		{"address written otherwise", rule(`request.ip == "2001:DB8::0"`), ":8:29", `write "2001:db8::"`},
		{"address in strings", rule(`request.ip in lists.admins`), ":8:35", "lists of addresses and networks are under networks"},
		{"hour", rule(`now.hour("UTC") > 3`), ":8:19", "use now.during("},
		{"age", rule(`session.age > days(3)`), ":8:23", "the age is now - session.created"},
		{"unknown field", rule(`request.user == "x"`), ":8:23", "request has no field user (did you mean user_agent?)"},
		{"text without quotes", rule(`replay != none`), ":8:25", `text is written in quotes: "none"`},
		{"null", rule(`user.id == null`), ":8:23", "test for a value with has(session.expires)"},
		{"number and time", rule(`now > session.created + 90`), ":8:37", "write the number as a duration"},
		{"compared networks", rule(`networks.office == cidrs("")`), ":8:15", "may cost an unbounded amount"},
		{"dyn", rule(`dyn(user.id) == 3`), ":8:15", "function dyn is unknown"},
		{"constructed object", rule(`input.session{} == session`), ":8:28", "objects cannot be constructed"},
		{"protobuf", rule(`google.protobuf.Struct{} == {}`), ":8:37", "objects cannot be constructed"},
		{"bomb", rule(`"[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, session.labels.all(k, true)))"`), ":8:88", "comprehension exceeds nesting limit"},
		{"dear", rule(`session.labels.all(k, session.labels.all(j, k + j + user.id != session.device))`), ":8:15", "may cost"},
		{"unbounded", rule(`session.labels.map(k, session.labels.map(j, k + j)).size() > 3`), ":8:15", "may cost"},
		{"doubling", rule(`'"x".replace("", user.id).replace("", user.id).replace("", user.id).size() > 3'`), ":8:16", "may cost"},
		{"long", rule(`user.id in ["` + strings.Repeat("x", 5000) + `"]`), ":8:15", "expression code point size exceeds limit"},
		{"deep", rule(strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100)), ":8:15", "expression recursion limit exceeded"},
		{"dear together", head + "    rules:\n" + dear.String() + "    otherwise: allow\n", ":3:3", "policy p may cost"},

		{"dear together, in otherwise", head + "    otherwise: {effect: allow, caveats: [" + strings.Repeat("'x {session.labels.map(k, k + k).join(\"\").size()}', ", 9) + "]}\n", ":3:3", "policy p may cost"},

		{"constant", rule("'true'"), "", ""},
		{"never", rule("'false'"), ":8:16", "its condition is always false"},
		{"never, computed", rule("'1 > 2 && user.id == \"x\"'"), ":8:16", "its condition is always false"},
		{"after a constant", head + "    rules:\n      - {name: a, when: 1 < 2 || user.id == \"x\", then: deny}\n      - {name: b, when: user.id == \"y\", then: deny}\n    otherwise: allow\n", ":6:16", "rule b never runs: rule a in line 5"},
		{"the same again", head + "    rules:\n      - {name: a, when: user.id == \"x\", then: deny}\n      - {name: b, when: '(user.id  ==  \"x\")', then: deny}\n    otherwise: allow\n", ":6:16", "rule b never runs: rule a in line 5"},
		{"narrower", head + "    rules:\n      - {name: a, when: user.id == \"x\" || replay == \"fork\", then: deny}\n      - {name: b, when: session.epoch > 3 && replay == \"fork\", then: deny}\n    otherwise: allow\n", ":6:16", "rule b never runs: rule a in line 5"},
		{"covered by two", head + "    rules:\n      - {name: a, when: user.id == \"x\", then: deny}\n      - {name: b, when: replay == \"fork\", then: deny}\n      - {name: c, when: 'replay == \"fork\" || user.id == \"x\"', then: deny}\n    otherwise: allow\n", ":7:16", "rule c never runs: rule b in line 6"},

		{"no effect", then("{code: x}"), ":7:15", `then: key "effect" is missing`},
		{"misspelt effect", then("alow"), ":7:15", `then: want allow, deny, revoke, revoke_user, reauth or defer, got "alow" (did you mean allow?)`},
		{"strange effect", then("explode"), ":7:15", `then: want allow, deny, revoke, revoke_user, reauth or defer, got "explode"`},
		{"effect of the wrong type", then("{effect: [allow]}"), ":7:24", "effect: want allow, deny, revoke, revoke_user, reauth or defer, got a list"},
		{"ttl with deny", then("{effect: deny, ttl: 5m}"), ":7:35", "ttl: has no meaning with effect deny"},
		{"code with allow", then("{effect: allow, code: x}"), ":7:37", "code: has no meaning with effect allow"},
		{"ttl without a unit", then("{effect: allow, ttl: 60}"), ":7:36", "ttl: want a duration such as 90s, 5m, 12h or 30d, got 60; write 60s for seconds"},
		{"ttl of nothing", then("{effect: allow, ttl: 0s}"), ":7:36", "ttl: want at least 1s, got 0s"},
		{"negative ttl", then("{effect: allow, ttl: -5m}"), ":7:36", "ttl: want at least 1s, got -5m0s"},
		{"ttl in words", then("{effect: allow, ttl: five minutes}"), ":7:36", `ttl: want a duration such as 90s, 5m, 12h or 30d, got "five minutes"`},
		{"ttl of another type", then("{effect: allow, ttl: session.epoch}"), ":7:36", "ttl: want type duration, got int"},
		{"ttl of the wrong kind", then("{effect: allow, ttl: [5m]}"), ":7:36", "ttl: want a duration such as 5m, or an expression, got a list"},
		{"bad code", then("{effect: deny, code: Not-Good}"), ":7:36", "code: want a-z, 0-9 and _"},
		{"code of the wrong type", then("{effect: deny, code: 7}"), ":7:36", "code: want a string, got 7; quote it if it is one"},
		{"bad message", then(`{effect: deny, message: "a\nb"}`), ":7:39", `message contains '\n'`},
		{"soft_logout of the wrong type", then(`{effect: deny, soft_logout: "yes"}`), ":7:43", `soft_logout: want true or false, got "yes"`},
		{"keep_sessions of nothing", then("{effect: allow, keep_sessions: 0}"), ":7:46", "keep_sessions: want 1 to 10000, got 0"},
		{"keep_sessions of the wrong type", then("{effect: allow, keep_sessions: many}"), ":7:46", `keep_sessions: want a whole number, got "many"`},
		{"retry_after too long", then("{effect: defer, retry_after: 2d}"), ":7:44", "retry_after: want 1s to 24h0m0s, got 48h0m0s"},
		{"unknown key of then", then("{effect: allow, keep_session: 3}"), ":7:31", `then: key "keep_session" is unknown (did you mean keep_sessions?)`},
		{"caveats of the wrong type", then("{effect: allow, caveats: x}"), ":7:40", `caveats: want a list, got "x"`},
		{"empty caveat", then(`{effect: allow, caveats: [""]}`), ":7:41", "caveat is empty"},
		{"caveat with a line break", then(`{effect: allow, caveats: ["a\nb"]}`), ":7:41", `caveat contains '\n'`},
		{"caveat without a constant name", then(`{effect: allow, caveats: ["{user.id} x"]}`), ":7:41", "caveat: want a constant name first"},
		{"caveat with an open brace", then(`{effect: allow, caveats: ["a {user.id"]}`), ":7:44", "closing brace is missing"},
		{"caveat with a closing brace", then(`{effect: allow, caveats: ["a user.id}"]}`), ":7:51", "opening brace is missing"},
		{"caveat with a bad expression", then(`{effect: allow, caveats: ["a {user.idd}"]}`), ":7:50", "user has no field idd (did you mean id?)"},
		{"caveat with a map", then(`{effect: allow, caveats: ["a {session.labels}"]}`), ":7:45", "want type string, got map(string, string)"},
		{"label without a name", then(`{effect: allow, labels: {"": x}}`), ":7:40", "label without a name"},
		{"missing webhook", then("{webhook: risk}"), ":7:15", "webhook risk is not in the file"},
		{"webhook and more", then("{webhook: risk, ttl: 5m}"), ":7:15", "want no other key beside webhook"},

		{"too many lists", "version: 1\nlists:\n" + manyLists.String() + "policies:\n  p: {otherwise: allow}\n", ":3:3", "lists: want at most 256 lists, got 257"},
		{"list of the wrong type", "version: 1\nlists: {a: x}\npolicies:\n  p: {otherwise: allow}\n", ":2:12", `lists.a: want a list, got "x"`},
		{"number in a list", "version: 1\nlists: {a: [7]}\npolicies:\n  p: {otherwise: allow}\n", ":2:13", "lists.a: want a string, got 7; quote it if it is one"},
		{"address in a list of strings", "version: 1\nlists: {a: [10.0.0.1]}\npolicies:\n  p: {otherwise: allow}\n", ":2:13", "which belongs under networks"},
		{"name of a list", "version: 1\nlists: {a-b: [x]}\npolicies:\n  p: {otherwise: allow}\n", ":2:9", "no - in the name"},
		{"host bits", "version: 1\nnetworks: {a: [10.0.0.1/8]}\npolicies:\n  p: {otherwise: allow}\n", ":2:16", "write 10.0.0.0/8"},
		{"no network", "version: 1\nnetworks: {a: [10.0.0.0/33]}\npolicies:\n  p: {otherwise: allow}\n", ":2:16", `networks.a: want an address or a network such as 192.0.2.0/24, got "10.0.0.0/33"`},
		{"mapped network", "version: 1\nnetworks: {a: [\"::ffff:10.0.0.0/104\"]}\npolicies:\n  p: {otherwise: allow}\n", ":2:16", "networks.a: want IPv4 networks in IPv4 form, got ::ffff:10.0.0.0/104"},

		{"test that fails", head + "    otherwise: allow\n    tests:\n      - {name: t, expect: deny}\n", ":6:16", `test "t" of policy p fails: effect is allow, want deny; decided by rule otherwise`},
		{"test without expect", head + "    otherwise: allow\n    tests:\n      - {name: t}\n", ":6:9", `test: key "expect" is missing`},
		{"test of an unknown field", head + "    otherwise: allow\n    tests:\n      - {name: t, input: {sesion: {}}, expect: allow}\n", ":6:27", `input: key "sesion" is unknown (did you mean session?)`},
		{"test of a wrong value", head + "    otherwise: allow\n    tests:\n      - {name: t, input: {replay: none of it}, expect: allow}\n", ":6:35", `replay: want none, retry, fork, stale or reuse, got "none of it"`},
		{"test of a wrong time", head + "    otherwise: allow\n    tests:\n      - {name: t, input: {now: noon}, expect: allow}\n", ":6:32", `now: want a time such as 2026-03-02T12:00:00Z, got "noon"`},
		{"test that expects nothing", head + "    otherwise: allow\n    tests:\n      - {name: t, expect: {}}\n", ":6:27", "expect: want at least one key"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, test.file)
			if test.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			var problems yamlfile.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got %v, want problems", err)
			}
			got := problems[0].Error()
			if !strings.HasPrefix(got, "p.yaml"+test.place+": ") || !strings.Contains(got, test.want) {
				t.Errorf("got  %s\nwant p.yaml%s: … %s", got, test.place, test.want)
			}
		})
	}
}
