package schema

import _ "embed"

//go:embed std.yaml
var stdFile string

// Std returns the schema std: the caveats that a holder may add to a macaroon
// of this service, time-before and client-ip, in the style of the bakery. The
// error is always nil but for a broken build.
func Std() (*Schema, error) { return Load("std.yaml", []byte(stdFile)) }
