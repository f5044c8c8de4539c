// Package schema reads caveat schemas and verifies caveats: a schema defines the
// caveats that macaroons may carry, the types of their values, and when they hold.
//
// A caveat is a line of text that restricts a macaroon. A verifier rejects a caveat
// that it does not understand, so the caveats of a service have to be defined.
// [Load] reads a schema, [New] makes a [Checker] of it, and [Checker.Check] verifies
// the caveats of a macaroon whose signature has been verified. It refuses
//
//   - a caveat that the schema does not have;
//   - a caveat that is not in its style, or whose value is too long or not of its
//     type;
//   - a caveat whose check is false, or cannot be evaluated;
//   - a second caveat of one kind, unless it may be repeated;
//   - a macaroon without a required caveat.
//
// No caveat is ever skipped. A refusal is a [*CaveatError], which never contains a
// value. Signatures, keys and third-party caveats are out of scope.
//
// [Checker.Func] is for a verifier of single conditions, and [Schema.CheckCaveat] for
// a policy that adds one. [Std] is the schema of the caveats that any holder of a
// macaroon may add.
//
// # The file
//
// Format 1 is a YAML file. This one has every key:
//
//	format: 1                     # of this language; required
//	id: example                   # name in errors and in the reference; required
//	doc: Caveats of macaroons of example.org.
//	style: cond arg               # of caveats that name none; the default
//
//	context:                      # values for checks, beside value, now and ip
//	  device:  {type: string, doc: The device that the request is made with.}
//	  scopes:  {type: list(string), doc: The scopes that the request needs.}
//
//	versions:                     # v1, v2, … each adds caveats and changes none
//	  v1:
//	    time-before:
//	      type: time              # required
//	      required: true          # default false
//	      repeat: true            # default false
//	      check: now < value      # required
//	      doc: The macaroon is valid before this time.
//	    client-ip:
//	      type: network
//	      repeat: true
//	      check: value.containsIP(ip)
//	    user_id:
//	      type: user_id
//	      style: key = value      # as Synapse writes it
//	      check: "true"           # always holds
//	  v2:
//	    device:
//	      type: atom
//	      max_len: 64             # bytes of the value; default 256, at most 4096
//	      check: value == device
//	    scope:
//	      type: list(atom)
//	      style: "name: value"    # as Boulangerie writes it
//	      check: |
//	        scopes.all(s, s in value)
//	    read-only:
//	      type: flag              # the name alone, without a value
//	      check: scopes.all(s, s.endsWith("/read"))
//
// Unknown and duplicate keys, values of another type, and YAML's anchors, aliases and
// tags are errors. [Check] returns all problems at once, with line and column.
//
// A name is up to 64 letters, digits and any of . / - _. A style joins the name and
// the value of a caveat. No separator begins with a character of a name, so that a
// text has one reading:
//
//	cond arg       time-before 2030-01-02T15:04:05Z
//	key = value    user_id = @alice:example.org
//	key < value    time < 1893596645000
//	name: value    expires: 2030-01-02T15:04:05Z
//
// # Types
//
// A value is never empty. In a check it has the CEL type on the right.
//
//	flag       none: the caveat is its name                   bool, always true
//	string     text without control characters                string
//	atom       letters, digits and . / - _                    string
//	bool       true or false                                  bool
//	int        64 bits, no + and no leading zeros             int
//	time       RFC 3339                                       timestamp
//	time_ms    milliseconds since 1970                        timestamp
//	duration   90s, 1h30m and so on, never negative           duration
//	ip         an address without a zone                      net.IP
//	network    an address or a CIDR range                     net.CIDR
//	uri        an absolute URI, RFC 3986                      string
//	user_id    a Matrix user id                               string
//	list(T)    any of these but flag and string, one space    list(T)
//	           between
//
// IPv4 addresses in IPv6 form count as IPv4, and the host bits of a range are cleared.
//
// A context value has one of the types string, bool, int, time, duration, ip,
// network or a list of one of them. Text is at most 1024 bytes long and a list
// has at most 64 elements.
//
// # Checks
//
// A check is a boolean expression in CEL (cel.dev). Its variables are
//
//	value     of the caveat
//	now       a timestamp: the time of the request
//	ip        a net.IP: the address of the client
//
// and the context values, which the program supplies with each [Request]. A caveat
// whose check uses one that the request lacks is refused with [ErrUndecided]. The
// functions and macros are those of CEL and of its network extension, such as
// value.containsIP(ip) of a network, ip("…") and cidr("…"). Regular expressions and
// time zones must be literals: the holder of a macaroon must not choose them.
//
// Checks are compiled when the file is loaded. A check is an error if it does not
// compile, is not a boolean, or could cost more than 10 000 units (about a
// millisecond) with the longest values. The bound holds at run time too.
//
// # Versions
//
// A version adds caveats and changes none. A macaroon that was minted under version 2
// must have the caveats that versions 1 and 2 require, and may have any caveat of the
// schema. A new requirement needs a new version: macaroons of the old one stay valid,
// because the verifier passes their version in [Request.Version].
//
// # Other formats
//
// [Foreign] makes a [Schema] of a file in another format. Package boulangerie reads
// one of them.
package schema
