// Package jsonbody reads and changes JSON bodies of requests and answers on their
// way through the gateway.
//
// An [Object] keeps the order and the spelling of its members: only a member that is set
// differs in the encoded text. Parsing is strict, so that the gateway and the homeserver
// read the same: a name that occurs twice is an error, and so are more than 1024 members.
//
// Bodies are at most [MaxSize] bytes. Large ones share the memory of a [Room]; a
// body without room is refused with [ErrNoRoom] and never buffered.
package jsonbody

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxSize bounds the bodies that are read, in bytes. Other bodies are streamed.
const MaxSize = 1 << 20

// Errors of bodies.
var (
	ErrTooLarge = errors.New("body is too large")
	ErrNotJSON  = errors.New("body is not a JSON object")
	errCoding   = errors.New("content coding of the answer is not supported")
)

// maxMembers bounds the members of an object: each takes up to ten times the memory of
// its text.
const maxMembers = 1024

// Object is a JSON object that keeps the order and the spelling of its members.
type Object []member

type member struct {
	name  string
	value jsontext.Value
}

// Parse parses an object of up to 1024 members, or returns [ErrNotJSON]. A name that
// occurs twice is an error, since programs differ in the value that they use.
func Parse(data []byte) (Object, error) {
	d := jsontext.NewDecoder(bytes.NewReader(data))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return nil, ErrNotJSON
	}
	o := Object{}
	for d.PeekKind() == '"' && len(o) < maxMembers {
		name, err := d.ReadToken()
		if err != nil {
			return nil, ErrNotJSON
		}
		m := member{name: name.String()}
		value, err := d.ReadValue()
		if err != nil {
			return nil, ErrNotJSON
		}
		m.value = value.Clone()
		o = append(o, m)
	}
	if t, err := d.ReadToken(); err != nil || t.Kind() != '}' {
		return nil, ErrNotJSON
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, ErrNotJSON
	}
	return o, nil
}

func (o Object) index(name string) int {
	for i := range o {
		if o[i].name == name {
			return i
		}
	}
	return -1
}

// Get returns the value of a member; nil: absent.
func (o Object) Get(name string) jsontext.Value {
	if i := o.index(name); i >= 0 {
		return o[i].value
	}
	return nil
}

// Text returns the value of a member that is a string.
func (o Object) Text(name string) (string, bool) {
	v := o.Get(name)
	if v.Kind() != '"' {
		return "", false
	}
	b, err := jsontext.AppendUnquote(nil, v)
	return string(b), err == nil
}

// Is reports whether a member is a string with this value.
func (o Object) Is(name, value string) bool {
	text, ok := o.Text(name)
	return ok && text == value
}

// Set replaces a member, or adds it at the end.
func (o *Object) Set(name string, value jsontext.Value) {
	if i := o.index(name); i >= 0 {
		(*o)[i].value = value
		return
	}
	*o = append(*o, member{name, value})
}

// Remove removes a member, if it is present.
func (o *Object) Remove(name string) {
	if i := o.index(name); i >= 0 {
		*o = append((*o)[:i:i], (*o)[i+1:]...)
	}
}

// Encode returns the text of the object.
func (o Object) Encode() []byte {
	b := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, Quote(m.name)...), ':'), m.value...)
	}
	return append(b, '}')
}

// Quote returns a JSON string. Invalid UTF-8 is replaced by U+FFFD.
func Quote(s string) jsontext.Value {
	b, _ := jsontext.AppendQuote(nil, s) // fails for invalid UTF-8 only
	return b
}

// Number returns a JSON number.
func Number(n int64) jsontext.Value { return strconv.AppendInt(nil, n, 10) }

// readAll reads a body of up to MaxSize bytes.
func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err == nil && len(data) > MaxSize {
		err = ErrTooLarge
	}
	return data, err
}

// newBody returns a body of data, and sets the headers of its length and coding.
func newBody(h http.Header, data []byte) (body io.ReadCloser, length int64, codings []string) {
	h.Del("Content-Encoding")
	h.Del("Transfer-Encoding")
	h.Set("Content-Length", strconv.Itoa(len(data)))
	return io.NopCloser(bytes.NewReader(data)), int64(len(data)), nil
}

// SetRequest replaces the body of a request.
func SetRequest(r *http.Request, data []byte) {
	r.Body, r.ContentLength, r.TransferEncoding = newBody(r.Header, data)
}

// ReadResponse reads the body of an answer, decompresses it, and replaces it by the
// result. Some homeservers compress without a request for it.
func ReadResponse(resp *http.Response) ([]byte, error) { return ReadResponseWith(resp, readAll) }

// ReadResponseWith does the same with a function that reads up to [MaxSize] bytes.
func ReadResponseWith(resp *http.Response, readAll func(io.Reader) ([]byte, error)) ([]byte, error) {
	var r io.Reader = resp.Body
	switch enc := resp.Header.Get("Content-Encoding"); strings.ToLower(enc) {
	case "", "identity":
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			return nil, errors.New("answer is not valid gzip")
		}
		r = z
	default:
		return nil, errCoding
	}
	data, err := readAll(r)
	if err != nil {
		return nil, err
	}
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	SetResponse(resp, data)
	return data, nil
}

// ReadLenient reads the body of an answer that is passed on in any case. The object is
// nil if the body is not an object, or its content coding is not supported.
func ReadLenient(resp *http.Response) (Object, error) {
	data, err := ReadResponse(resp)
	switch {
	case errors.Is(err, errCoding):
		return nil, nil
	case err != nil:
		return nil, err
	}
	body, _ := Parse(data) // nil: not an object
	return body, nil
}

// SetResponse replaces the body of an answer.
func SetResponse(resp *http.Response, data []byte) {
	resp.Body, resp.ContentLength, resp.TransferEncoding = newBody(resp.Header, data)
}
