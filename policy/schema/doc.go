// Package schema reads caveat schemas: files that say which caveats a macaroon
// may carry, what their values are, and when they hold.
//
// A caveat is a line of text that takes something away. A verifier that meets
// one it does not understand has to refuse, so somebody has to write down
// which ones there are. A schema is where. Load one with [Load], make a
// [Checker] of it, and give that the caveats of a macaroon whose signature has
// been verified:
//
//   - a caveat that the schema does not have is refused;
//   - so is one that is not written in its style, or whose value is not of its
//     type or too long;
//   - so is one whose check says no, or cannot be made;
//   - so is a second one where the schema allows one;
//   - so is a macaroon without a caveat that the schema requires.
//
// Nothing is ever skipped. A refusal is a [*CaveatError] that says which caveat
// and why, and never holds the value of one. Signatures, keys and third-party
// caveats are not this package's business.
//
// Some ask about less than a whole macaroon: [Checker.Func] is for a verifier
// that meets one condition it does not know, and [Schema.KnowsCaveat] for a
// policy that is about to add one. [Std] is the schema of what any holder of a
// macaroon of this service may add.
//
// # The file
//
// Format 1 is a YAML file. Here is one with everything in it:
//
//	format: 1                     # of this language; required
//	id: example                   # what errors and the reference call it; required
//	doc: What macaroons of example.org may carry.
//	style: cond arg               # of caveats that name none; this is the default
//
//	context:                      # what checks may use beside value, now and ip
//	  device:  {type: string, doc: The device that the request is made with.}
//	  scopes:  {type: list(string), doc: What the request asks for.}
//
//	versions:                     # v1, v2, … each adds caveats and changes none
//	  v1:
//	    time-before:
//	      type: time              # required
//	      required: true          # default false
//	      repeat: true            # default false
//	      check: now < value      # required
//	      doc: The macaroon is worth nothing from this time on.
//	    client-ip:
//	      type: network
//	      repeat: true
//	      check: value.containsIP(ip)
//	    user_id:
//	      type: user_id
//	      style: key = value      # as Synapse writes it
//	      check: "true"           # it only informs
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
// Keys that are not known, keys given twice and values of another type are
// errors, and so are YAML's aliases and tags. Every [Problem] has its line and
// column, and [Check] finds all of them at once.
//
// A name is up to 64 letters, digits and any of . / - _. A style says how a
// caveat joins its name and its value; whatever the style, a text is read in
// one way only, because no separator begins with a character of a name:
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
//	flag       none, the caveat is its name alone             bool, always true
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
// IPv4 addresses in IPv6 form are taken for what they are, and the host bits of
// a range are cleared.
//
// A context value has one of the types string, bool, int, time, duration, ip,
// network or a list of one of them. Text is at most 1024 bytes long and a list
// has at most 64 elements.
//
// # Checks
//
// A check is an expression in CEL (cel.dev) that says true or false. It sees
//
//	value     of the caveat
//	now       a timestamp: when the request came
//	ip        a net.IP: the address of the client
//
// and the context values that the file declares, which the program brings with
// each [Request]. A check that uses one that the request does not have is not
// made, and the caveat is refused with [ErrUndecided]. There are CEL's standard
// functions and macros, and those of its network extension: value.containsIP(ip)
// of a network, ip("…"), cidr("…") and so on. A regular expression and a time
// zone have to be written out; a macaroon's holder must not choose them.
//
// Checks are compiled when the file is loaded: one that does not compile, that
// says anything but true or false, or that could cost more than 10 000 units
// (about a millisecond) with the longest values allowed, is an error there.
// The bound holds at run time too.
//
// # Versions
//
// Versions only ever add. A macaroon that was made under version 2 must have
// what versions 1 and 2 require; it may have any caveat of the schema. A schema
// that requires something new says so in a new version, and the macaroons of
// the old one stay good: whoever asks gives the version in [Request.Version].
//
// # Other formats
//
// [Foreign] makes a [Schema] of a file in another format. Package boulangerie reads
// one of them.
package schema
