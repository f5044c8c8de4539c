package keyfile

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/secret"
)

// The versions of the format; see the package comment.
const (
	version1 = 1
	version2 = 2
)

// document is the file.
type document struct {
	Note       string        `json:"note"`
	Version    int           `json:"version"`
	Owner      Owner         `json:"owner"`
	Homeserver *peerDocument `json:"homeserver,omitzero"`
	Retired    []RetiredKey  `json:"retired,omitempty"`
	Keys       []keyDocument `json:"keys"`
}

type peerDocument struct {
	Name       string           `json:"name"`
	Service    string           `json:"service"`
	ServiceKey caveat.PublicKey `json:"service_key"`
}

type keyDocument struct {
	Kind    Kind      `json:"kind"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Staged  bool      `json:"staged,omitzero"`
	Since   time.Time `json:"since,omitzero"`
	Public  string    `json:"public,omitzero"`
	Secret  string    `json:"secret"`
}

// retiredDocument is a retired key of another kind than refresh.
type retiredDocument struct {
	Kind   Kind   `json:"kind"`
	ID     string `json:"id"`
	Public string `json:"public,omitzero"`
}

// MarshalJSONTo writes the form in a key file.
func (k RetiredKey) MarshalJSONTo(enc *jsontext.Encoder) error {
	id := hex.EncodeToString(k.ID[:])
	if k.Kind == Refresh {
		return enc.WriteToken(jsontext.String(id))
	}
	doc := retiredDocument{Kind: k.Kind, ID: id}
	if k.Public != (caveat.PublicKey{}) {
		doc.Public = k.Public.String()
	}
	return json.MarshalEncode(enc, doc)
}

// UnmarshalJSONFrom decodes the form of MarshalJSONTo.
func (k *RetiredKey) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	doc := retiredDocument{Kind: Refresh}
	if dec.PeekKind() == '"' {
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		doc.ID = token.String()
	} else if err := json.UnmarshalDecode(dec, &doc); err != nil {
		return err
	}
	id, err := hex.DecodeString(doc.ID)
	if err != nil || len(id) != len(k.ID) || doc.ID != hex.EncodeToString(id) {
		return errors.New("id is not 8 hexadecimal digits")
	}
	*k = RetiredKey{Kind: doc.Kind, ID: [4]byte(id)}
	if doc.Public != "" {
		k.Public, err = caveat.ParsePublicKey(doc.Public)
	}
	return err
}

// versionOf returns the earliest version of the format that has all of a ring.
func versionOf(r *Ring) int {
	for _, k := range r.Retired {
		if k.Kind != Refresh {
			return version2
		}
	}
	for _, k := range r.Keys {
		if k.Staged || !k.Since.IsZero() {
			return version2
		}
	}
	return version1
}

// note describes the file for its readers.
func note(o Owner) string {
	made := "discharges and refresh tokens for any session"
	if o == Homeserver {
		made = "access macaroons for any user"
	}
	return "Secret: a holder of these keys can make " + made + ". Managed by: discharger keys"
}

// encode returns the file of a ring.
func encode(r *Ring) ([]byte, error) {
	doc := document{Note: note(r.Owner), Version: versionOf(r), Owner: r.Owner, Retired: r.Retired, Keys: []keyDocument{}}
	if r.Owner == Homeserver {
		p := peerDocument(r.Peer)
		doc.Homeserver = &p
	}
	for _, k := range r.Keys {
		kd := keyDocument{Kind: k.Kind, ID: k.ID, Created: k.Created, Staged: k.Staged, Since: k.Since, Secret: k.secret.Encode()}
		if k.Public != (caveat.PublicKey{}) {
			kd.Public = k.Public.String()
		}
		doc.Keys = append(doc.Keys, kd)
	}
	b, err := json.Marshal(doc, jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("encode key file: %w", err)
	}
	return append(b, '\n'), nil
}

// decode parses a file.
func decode(data []byte) (*Ring, error) {
	var doc document
	if err := json.Unmarshal(data, &doc, json.RejectUnknownMembers(true)); err != nil {
		return nil, decodeError(err)
	}
	if doc.Version != version1 && doc.Version != version2 {
		return nil, fmt.Errorf("version %d is unknown", doc.Version)
	}
	r := &Ring{Owner: doc.Owner, Retired: doc.Retired}
	if (doc.Owner == Homeserver) != (doc.Homeserver != nil) {
		return nil, fmt.Errorf("member homeserver is only for owner %q, and required there", Homeserver)
	}
	if doc.Homeserver != nil {
		r.Peer = Peer(*doc.Homeserver)
	}
	for i, kd := range doc.Keys {
		k, err := kd.key()
		if err != nil {
			return nil, fmt.Errorf("keys[%d]: %w", i, err)
		}
		r.Keys = append(r.Keys, k)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	return r, nil
}

// decodeError returns the place of an error, without the content of the file.
func decodeError(err error) error {
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		return fmt.Errorf("is not a key file: wrong at %q, byte %d", semantic.JSONPointer, semantic.ByteOffset)
	}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		return fmt.Errorf("is not JSON, or has a member twice: at %q, byte %d", syntactic.JSONPointer, syntactic.ByteOffset)
	}
	return errors.New("is not a key file")
}

// key returns the key, whose id and public half have to match the secret.
func (kd keyDocument) key() (Key, error) {
	raw, err := secret.ParseKey(kd.Secret)
	if err != nil {
		return Key{}, errors.New("secret is not 32 bytes of base64")
	}
	k := Key{Kind: kd.Kind, Created: kd.Created.UTC().Truncate(time.Second), Staged: kd.Staged, secret: raw}
	if !kd.Since.IsZero() {
		k.Since = kd.Since.UTC().Truncate(time.Second)
	}
	if err := k.derive(); err != nil {
		return Key{}, err
	}
	if kd.ID != k.ID {
		return Key{}, fmt.Errorf("id does not match the secret, whose id is %s", k.ID)
	}
	public := ""
	if k.Public != (caveat.PublicKey{}) {
		public = k.Public.String()
	}
	if kd.Public != public {
		return Key{}, fmt.Errorf("public does not match the secret of key %s", k.ID)
	}
	return k, nil
}
