package boulangerie

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/discharger/discharger/policy/schema"
)

// An Identifier is the identifier of a Boulangerie token:
//
//	v:0 uuid:<uuid> kid:<key id> sch:<schema-id>@<version> iat:<time>
//
// It is not checked against a schema or a key: a program that finds a key by KeyID
// compares SchemaID too. As in the gem, Version has no effect on verification.
type Identifier struct {
	UUID     string
	KeyID    string
	SchemaID string
	Version  int       // the largest int when it is larger still
	IssuedAt time.Time // UTC
}

var schemaRef = regexp.MustCompile(`^([a-z0-9]{16})@([0-9]+)$`)

// ParseIdentifier parses the identifier of a Boulangerie token, of at most
// [schema.MaxCondition] bytes. Errors wrap [schema.ErrMalformed] and do not contain
// the text.
func ParseIdentifier(s string) (Identifier, error) {
	if len(s) > schema.MaxCondition {
		return Identifier{}, badIdentifier("is %d bytes long, at most %d", len(s), schema.MaxCondition)
	}
	parts := strings.FieldsFunc(s, isSpace)
	labels := []string{"v", "uuid", "kid", "sch", "iat"}
	values := make([]string, len(labels))
	for i, label := range labels {
		found := false
		if i < len(parts) {
			values[i], found = strings.CutPrefix(parts[i], label+":")
		}
		if !found {
			return Identifier{}, badIdentifier("missing '%s'", label)
		}
	}
	if len(parts) > len(labels) {
		return Identifier{}, badIdentifier("unexpected field after 'iat'")
	}
	if format, err := parseDecimal(values[0]); err != nil || format.(*big.Int).Sign() != 0 {
		return Identifier{}, badIdentifier("bad version")
	}
	ref := schemaRef.FindStringSubmatch(values[3])
	if ref == nil {
		return Identifier{}, badIdentifier("bad schema identifier")
	}
	issued, err := parseDateTime(values[4])
	if err != nil {
		return Identifier{}, badIdentifier("bad time")
	}
	id := Identifier{UUID: values[1], KeyID: values[2], SchemaID: ref[1], IssuedAt: issued.(time.Time)}
	if id.Version, err = strconv.Atoi(ref[2]); err != nil {
		id.Version = math.MaxInt
	}
	return id, nil
}

func badIdentifier(format string, args ...any) error {
	return fmt.Errorf("identifier: %w: %s", schema.ErrMalformed, fmt.Sprintf(format, args...))
}
