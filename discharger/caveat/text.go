package caveat

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/crypto/nacl/box"
)

// textMark is the first byte of a V1 caveat, whose base64 begins with that of '{'.
const textMark = 'e'

// textFields and secretFields are the members of the two JSON objects of a V1 caveat,
// in the bakery's order.
var (
	textFields   = []string{"ThirdPartyPublicKey", "FirstPartyPublicKey", "Nonce", "Id"}
	secretFields = []string{"RootKey", "Condition"}
)

func (o *Opener) openText(id []byte) (Opened, error) {
	if len(id) > MaxTextSize {
		return Opened{}, fmt.Errorf("%w: %d bytes, more than %d", ErrMalformed, len(id), MaxTextSize)
	}
	text, err := decodeStd(id)
	if err != nil {
		return Opened{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	members, err := stringMembers(text, textFields...)
	if err != nil {
		return Opened{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	var fields [4][]byte
	for i, member := range members {
		if fields[i], err = decodeStd([]byte(member)); err != nil {
			return Opened{}, fmt.Errorf("%w: %s: %w", ErrMalformed, textFields[i], err)
		}
	}
	to, from, nonce, sealed := fields[0], fields[1], fields[2], fields[3]
	if len(to) != keySize || len(from) != keySize || len(nonce) != nonceSize {
		return Opened{}, fmt.Errorf("%w: a key or the nonce has a wrong size", ErrMalformed)
	}
	index := o.byKey(PublicKey(to))
	if index < 0 {
		return Opened{}, o.notOurs(to[:prefixSize])
	}
	registered, plain, err := o.unbox(index, (*PublicKey)(from), (*[nonceSize]byte)(nonce), sealed)
	if err != nil {
		return Opened{}, err
	}
	inner, err := readTextContent(plain)
	if err != nil {
		return Opened{}, fmt.Errorf("%w: sealed part: %w", ErrMalformed, err)
	}
	return inner.opened(V1, index, registered), nil
}

// readTextContent parses the content of a V1 caveat. Its errors are not JSON's, which
// quote the content.
func readTextContent(plain []byte) (content, error) {
	members, err := stringMembers(plain, secretFields...)
	if err != nil {
		return content{}, errors.New("not the JSON object of a V1 caveat")
	}
	rootKey, err := decodeStd([]byte(members[0]))
	if err != nil {
		return content{}, errors.New("root key is not base64")
	}
	s := content{rootKey: rootKey, condition: []byte(members[1])}
	return s, s.check()
}

// sealText seals in the V1 encoding.
func (s *Sealer) sealText(nonce *[nonceSize]byte, rootKey []byte, condition string) ([]byte, error) {
	plain := base64.StdEncoding.AppendEncode([]byte(`{"RootKey":"`), rootKey)
	plain = append(plain, `","Condition":`...)
	plain, err := jsontext.AppendQuote(plain, condition)
	if err != nil {
		return nil, errors.New("condition is not UTF-8")
	}
	plain = append(plain, '}')
	sealed := box.SealAfterPrecomputation(nil, plain, nonce, s.shared())

	text := []byte{'{'}
	for i, value := range [][]byte{s.discharger[:], s.homeserver[:], nonce[:], sealed} {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, `"`+textFields[i]+`":"`...)
		text = base64.StdEncoding.AppendEncode(text, value)
		text = append(text, '"')
	}
	text = append(text, '}')
	return base64.StdEncoding.AppendEncode(nil, text), nil
}

// decodeStd decodes standard base64, padded, in its one spelling. Strict decoding alone
// skips line breaks.
func decodeStd(text []byte) ([]byte, error) {
	if bytes.ContainsAny(text, "\r\n") {
		return nil, errors.New("line break in base64")
	}
	data := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(data, text)
	if err != nil {
		return nil, errors.New("not base64")
	}
	return data[:n], nil
}
