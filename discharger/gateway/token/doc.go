// Package token encodes the tokens that the gateway issues to Matrix clients,
// and narrows them.
//
// The prefix of a token is its kind. Prefixes are fixed, so that scanners for
// leaked secrets find tokens.
//
//	dga_  access token, mode held: the access macaroon alone, in the standard
//	      form of a bundle. The gateway fetches and keeps its discharges.
//	dgb_  access token, mode rotate: access macaroon and discharge, as a compact
//	      bundle. It expires with the discharge.
//	dgr_  refresh token: the access macaroon and the service's refresh token,
//	      sealed. A refresh needs nothing else.
//
// Parsing is strict: every token has exactly one text. [Sealer.WasOurs] detects a token
// whose prefix was changed, so that it is never passed on as one of the homeserver's.
//
// # Sealing
//
// [Sealer] encrypts the homeserver's own token inside the access macaroon, and the
// contents of a refresh token, with XChaCha20-Poly1305. Each purpose has a key of its
// own, derived from the gateway's master key. The homeserver's token is bound to its
// session. A box is
//
//	0   id of the master key                      4 bytes
//	4   nonce                                    24 bytes
//	28  ciphertext and tag
//
// The nonce is derived from the contents, so equal contents make equal boxes: a client
// that repeats a request receives the same token.
//
// # Attenuation
//
// [Attenuate] adds conditions to a dga_ token, without any request:
//
//	time-before T   until a time, RFC 3339
//	client-ip A     from an address or a CIDR only
//	read-only       for reading
//	room !id        in one room
//
// Conditions only ever narrow. A token with an unknown condition, with more than 16
// conditions, or with one of more than 512 bytes is refused.
package token
