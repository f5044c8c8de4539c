package schema

import _ "embed"

//go:embed std.yaml
var stdFile string

// Std returns the standard schema: time-before and client-ip, in the style of the
// bakery, which any holder may add to a macaroon of the service. The error is nil
// unless the build is broken.
func Std() (*Schema, error) { return Load("std.yaml", []byte(stdFile)) }
