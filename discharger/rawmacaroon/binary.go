package rawmacaroon

import (
	"encoding/binary"
	"errors"
)

// Macaroon is a macaroon in binary format 2. After [Parse] its slices share memory
// with the parsed bytes and must not be changed.
type Macaroon struct {
	Location  []byte // empty: none
	ID        []byte
	Caveats   []Caveat
	Signature []byte // Size bytes
}

// Caveat is a caveat of a [Macaroon]: a third-party caveat if it has a
// VerificationID, otherwise a first-party caveat whose condition is ID.
type Caveat struct {
	Location       []byte
	ID             []byte
	VerificationID []byte
}

// ThirdParty reports whether the caveat needs a discharge.
func (c *Caveat) ThirdParty() bool { return len(c.VerificationID) > 0 }

// MaxCaveats is the greatest number of caveats that [Parse] collects.
const MaxCaveats = 64

// The binary format:
//
//	02                                      version
//	[location] identifier 00                fields of the macaroon
//	[location] identifier [vid] 00          of each caveat
//	00 signature
//
// A field is its number, the length of its value as a uvarint, and the value.
const (
	binaryVersion = 2

	fieldEnd            = 0
	fieldLocation       = 1
	fieldIdentifier     = 2
	fieldVerificationID = 4
	fieldSignature      = 6
)

var (
	errCut          = errors.New("truncated")
	errBinary       = errors.New("not a macaroon in the V2 binary format")
	errNotCanonical = errors.New("not in canonical form")
	errManyCaveats  = errors.New("too many caveats")
)

// Parse decodes the macaroon at the start of data into m, except for its Caveats, which
// it appends to caveats. It returns the rest of data, and the caveats. It copies nothing.
// Lengths must be in the fewest bytes and below 16384; a location or verification id is
// absent rather than empty; only a third-party caveat has a location.
func Parse(data []byte, m *Macaroon, caveats []Caveat) ([]byte, []Caveat, error) {
	if len(data) == 0 {
		return nil, nil, errCut
	}
	if data[0] != binaryVersion {
		return nil, nil, errBinary
	}
	data = data[1:]
	var header Caveat
	data, err := cutSection(data, &header)
	if err != nil {
		return nil, nil, err
	}
	if header.ThirdParty() {
		return nil, nil, errBinary
	}
	m.Location, m.ID = header.Location, header.ID
	for len(data) > 0 && data[0] != fieldEnd {
		if len(caveats) == MaxCaveats {
			return nil, nil, errManyCaveats
		}
		caveats = append(caveats, Caveat{})
		c := &caveats[len(caveats)-1]
		if data, err = cutSection(data, c); err != nil {
			return nil, nil, err
		}
		if len(c.Location) > 0 && !c.ThirdParty() {
			return nil, nil, errBinary
		}
	}
	if len(data) < 3+Size {
		return nil, nil, errCut
	}
	if data[1] != fieldSignature || data[2] != Size {
		return nil, nil, errBinary
	}
	m.Signature = data[3 : 3+Size : 3+Size]
	return data[3+Size:], caveats, nil
}

// cutSection decodes the fields of a section: an optional location, an
// identifier, an optional verification id, and the end.
func cutSection(data []byte, c *Caveat) ([]byte, error) {
	var err error
	if len(data) > 0 && data[0] == fieldLocation {
		if c.Location, data, err = cutField(data[1:]); err != nil {
			return nil, err
		}
		if len(c.Location) == 0 {
			return nil, errNotCanonical
		}
	}
	if len(data) == 0 {
		return nil, errCut
	}
	if data[0] != fieldIdentifier {
		return nil, errBinary
	}
	if c.ID, data, err = cutField(data[1:]); err != nil {
		return nil, err
	}
	if len(data) > 0 && data[0] == fieldVerificationID {
		if c.VerificationID, data, err = cutField(data[1:]); err != nil {
			return nil, err
		}
		if len(c.VerificationID) == 0 {
			return nil, errNotCanonical
		}
	}
	if len(data) == 0 {
		return nil, errCut
	}
	if data[0] != fieldEnd {
		return nil, errBinary
	}
	return data[1:], nil
}

// cutField decodes a length and as many bytes. Lengths are uvarints of one or two
// bytes: up to 16383, more than a bundle can have.
func cutField(data []byte) (field, rest []byte, err error) {
	if len(data) == 0 {
		return nil, nil, errCut
	}
	length, at := int(data[0]), 1
	if length >= 0x80 {
		if len(data) < 2 {
			return nil, nil, errCut
		}
		high := int(data[1])
		switch {
		case high == 0:
			return nil, nil, errNotCanonical
		case high >= 0x80:
			return nil, nil, errCut
		}
		length, at = length&0x7f|high<<7, 2
	}
	if length > len(data)-at {
		return nil, nil, errCut
	}
	end := at + length
	return data[at:end:end], data[end:], nil
}

// Append appends the encoded macaroon to data.
func (m *Macaroon) Append(data []byte) []byte {
	data = append(data, binaryVersion)
	if len(m.Location) > 0 {
		data = appendField(data, fieldLocation, m.Location)
	}
	data = appendField(data, fieldIdentifier, m.ID)
	data = append(data, fieldEnd)
	for i := range m.Caveats {
		c := &m.Caveats[i]
		if len(c.Location) > 0 {
			data = appendField(data, fieldLocation, c.Location)
		}
		data = appendField(data, fieldIdentifier, c.ID)
		if len(c.VerificationID) > 0 {
			data = appendField(data, fieldVerificationID, c.VerificationID)
		}
		data = append(data, fieldEnd)
	}
	data = append(data, fieldEnd)
	return appendField(data, fieldSignature, m.Signature)
}

func appendField(data []byte, field byte, value []byte) []byte {
	data = append(data, field)
	data = binary.AppendUvarint(data, uint64(len(value)))
	return append(data, value...)
}
