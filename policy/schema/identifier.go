package schema

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// An Identifier is what a Boulangerie token says of itself:
//
//	v:0 uuid:<uuid> kid:<key id> sch:<schema-id>@<version> iat:<time>
//
// Nothing in it is checked against a schema or a key: whoever looks up a key
// by KeyID compares SchemaID too. As in the gem, Version plays no part in
// verifying.
type Identifier struct {
	UUID     string
	KeyID    string
	SchemaID string
	Version  int       // the largest int when it is larger still
	IssuedAt time.Time // UTC
}

var schemaRef = regexp.MustCompile(`^([a-z0-9]{16})@([0-9]+)$`)

// ParseIdentifier reads the identifier of a Boulangerie token, at most
// [MaxCondition] bytes. Its errors wrap [ErrMalformed] and quote nothing.
func ParseIdentifier(s string) (Identifier, error) {
	if len(s) > MaxCondition {
		return Identifier{}, badIdentifier("is %d bytes long, at most %d", len(s), MaxCondition)
	}
	parts := strings.FieldsFunc(s, func(r rune) bool { return r < 0x80 && isRubySpace(byte(r)) })
	labels := []string{"v", "uuid", "kid", "sch", "iat"}
	values := make([]string, len(labels))
	for i, label := range labels {
		if i >= len(parts) {
			return Identifier{}, badIdentifier("missing '%s'", label)
		}
		value, ok := strings.CutPrefix(parts[i], label+":")
		if !ok {
			return Identifier{}, badIdentifier("missing '%s'", label)
		}
		values[i] = value
	}
	if len(parts) > len(labels) {
		return Identifier{}, badIdentifier("unexpected field after 'iat'")
	}
	if format, err := rubyInteger(values[0]); err != nil || format.(*big.Int).Sign() != 0 {
		return Identifier{}, badIdentifier("bad version")
	}
	ref := schemaRef.FindStringSubmatch(values[3])
	if ref == nil {
		return Identifier{}, badIdentifier("bad schema identifier")
	}
	issued, err := rubyTime(values[4])
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
	return fmt.Errorf("identifier: %w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}
