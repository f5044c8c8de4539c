package schema

import (
	_ "embed"

	"github.com/discharger/discharger/config/yamlfile"
)

// Limits of a schema file. A file beyond one of them is rejected before it costs
// more work.
const (
	MaxFile     = 1 << 20 // bytes of a file
	MaxNodes    = 100_000 // YAML nodes of a file: one of nothing but commas is nearly all nodes
	MaxVersions = 64      // versions of a schema
	MaxCaveats  = 256     // caveats of a schema, all versions together
	MaxContext  = 64      // context values of a schema
	MaxName     = 64      // bytes of a name or an id
	MaxCheck    = 2048    // characters of a check
	MaxDoc      = 4096    // bytes of a doc text
)

// Load parses a schema file of format 1. filename stands in errors only. An error is of
// type [yamlfile.Problems], and wraps the kinds of its problems, such as [ErrCheck].
func Load(filename string, data []byte) (*Schema, error) {
	schema, problems := read(filename, data)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	return schema, nil
}

// Check returns all problems of a schema file, warnings included, in the order of
// the file. [Load] accepts a file with no problems but warnings.
func Check(filename string, data []byte) yamlfile.Problems {
	_, problems := read(filename, data)
	return problems
}

// read returns the part of the schema that can be decoded.
func read(filename string, data []byte) (*Schema, yamlfile.Problems) {
	doc := yamlfile.Read(filename, data, yamlfile.Options{MaxBytes: MaxFile, MaxNodes: MaxNodes, Kind: ErrParse})
	d := &decoder{Document: doc, schema: newSchema(Format1)}
	if doc.Root != nil {
		d.decode()
	}
	return d.schema, doc.Problems()
}

//go:embed std.yaml
var stdFile string

// Std returns the standard schema: time-before and client-ip, in the style of the
// bakery, which any holder may add to a macaroon of the service. The error is nil
// unless the build is broken.
func Std() (*Schema, error) { return Load("std.yaml", []byte(stdFile)) }
