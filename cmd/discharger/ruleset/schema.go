package ruleset

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/policy/schema"
	"github.com/discharger/discharger/policy/schema/boulangerie"
)

// knownCaveats has the standard schema and the operator's.
type knownCaveats []*schema.Schema

// CheckCaveat returns the verdict of the first schema that has a caveat by its name.
func (k knownCaveats) CheckCaveat(condition string) error {
	var err error
	for _, s := range k {
		if err = s.CheckCaveat(condition); !errors.Is(err, schema.ErrUnknown) {
			return err
		}
	}
	return err
}

// Caveats returns the checker of the caveats that policies may add: the standard schema,
// and the one at path unless that is empty.
func Caveats(path string) (func(condition string) error, error) {
	std, err := schema.Std()
	if err != nil {
		return nil, err
	}
	if path == "" {
		return knownCaveats{std}.CheckCaveat, nil
	}
	own, err := Schema(path)
	if err != nil {
		return nil, command.Mark(err, command.ErrConfig)
	}
	return knownCaveats{std, own}.CheckCaveat, nil
}

// Schema reads a caveat schema.
func Schema(path string) (*schema.Schema, error) {
	data, err := ReadSchema(path)
	if err != nil {
		return nil, err
	}
	return boulangerie.Load(path, data)
}

// ReadSchema reads the file of a schema, up to one byte beyond the parser's limit.
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
