// Package jsonbody reads and changes JSON bodies of requests and answers on their
// way through the gateway.
//
// An [Object] keeps the order and the spelling of its members: only a member that is
// set differs in the encoded text. Parsing is strict, so that the gateway and the
// homeserver read the same: a name that occurs twice is an error, and so are more
// than 1024 members.
//
// Bodies are at most [MaxSize] bytes. Large ones share the memory of a [Room]; a
// body without room is refused with [ErrNoRoom] and never buffered.
package jsonbody
