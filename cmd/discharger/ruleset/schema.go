package ruleset

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/policy/rules"
	"github.com/discharger/discharger/policy/schema"
	"github.com/discharger/discharger/policy/schema/boulangerie"
)

// knownCaveats are those of the standard schema and of the operator's.
type knownCaveats []*schema.Schema

// KnowsCaveat asks each schema. What one knows by name, it decides about.
func (k knownCaveats) KnowsCaveat(condition string) error {
	var err error
	for _, s := range k {
		if err = s.KnowsCaveat(condition); !errors.Is(err, schema.ErrUnknown) {
			return err
		}
	}
	return err
}

// loadCaveats reads the schema of what policies may add; path may be empty.
func Caveats(path string) (rules.CaveatChecker, error) {
	std, err := schema.Std()
	if err != nil {
		return nil, err
	}
	if path == "" {
		return knownCaveats{std}, nil
	}
	own, err := Schema(path)
	if err != nil {
		return nil, command.Mark(err, command.ErrConfig)
	}
	return knownCaveats{std, own}, nil
}

// loadSchema reads a caveat schema.
func Schema(path string) (*schema.Schema, error) {
	data, err := ReadSchema(path)
	if err != nil {
		return nil, err
	}
	return boulangerie.Load(path, data)
}

// readSchema reads a schema's file. One that is too long is left to the parser
// to complain about.
func ReadSchema(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read caveat schema: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, schema.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read caveat schema: %w", err)
	}
	return data, nil
}
