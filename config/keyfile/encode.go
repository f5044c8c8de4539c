package keyfile

import (
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
)

const version = 1

// document is the file.
type document struct {
	Note       string        `json:"note"`
	Version    int           `json:"version"`
	Owner      Owner         `json:"owner"`
	Homeserver *peerDocument `json:"homeserver,omitzero"`
	Retired    []RetiredID   `json:"retired,omitempty"`
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
	Public  string    `json:"public,omitzero"`
	Secret  string    `json:"secret"`
}

// note tells whoever opens the file what it is.
func note(o Owner) string {
	what := "discharges and refresh tokens for any session"
	if o == Homeserver {
		what = "access macaroons for any user"
	}
	return "Secret: whoever has these keys can make " + what + ". Kept by: discharger keys"
}

// encode writes a file.
func encode(r *Ring) ([]byte, error) {
	doc := document{Note: note(r.Owner), Version: version, Owner: r.Owner, Retired: r.Retired, Keys: []keyDocument{}}
	if r.Owner == Homeserver {
		p := peerDocument(r.Peer)
		doc.Homeserver = &p
	}
	for _, k := range r.Keys {
		kd := keyDocument{Kind: k.Kind, ID: k.ID, Created: k.Created, Secret: base64.StdEncoding.EncodeToString(k.secret[:])}
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

// decode reads a file.
func decode(data []byte) (*Ring, error) {
	var doc document
	if err := json.Unmarshal(data, &doc, json.RejectUnknownMembers(true)); err != nil {
		return nil, decodeError(err)
	}
	if doc.Version != version {
		return nil, fmt.Errorf("is of version %d, which this program does not know", doc.Version)
	}
	r := &Ring{Owner: doc.Owner, Retired: doc.Retired}
	if (doc.Owner == Homeserver) != (doc.Homeserver != nil) {
		return nil, fmt.Errorf("homeserver goes with owner %q, and only with that", Homeserver)
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

// decodeError says where a file is wrong, and nothing of what is there.
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

// key checks that what is written beside the secret belongs to it.
func (kd keyDocument) key() (Key, error) {
	secret, err := api.DecodeBase64(kd.Secret)
	if err != nil || len(secret) != 32 {
		return Key{}, errors.New("secret is not 32 bytes of base64")
	}
	k := Key{Kind: kd.Kind, Created: kd.Created.UTC().Truncate(time.Second), secret: [32]byte(secret)}
	if err := k.derive(); err != nil {
		return Key{}, err
	}
	if kd.ID != k.ID {
		return Key{}, fmt.Errorf("id is not that of the secret, which is %s", k.ID)
	}
	public := ""
	if k.Public != (caveat.PublicKey{}) {
		public = k.Public.String()
	}
	if kd.Public != public {
		return Key{}, fmt.Errorf("public is not that of the secret of key %s", k.ID)
	}
	return k, nil
}
