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

// MaxSize bounds the bodies that are read, in bytes. All others only pass
// through.
const MaxSize = 1 << 20

var (
	ErrTooLarge = errors.New("body is too large")
	ErrNotJSON  = errors.New("body is not a JSON object")
	errCoding   = errors.New("answer is compressed in a way that was not asked for")
)

// maxMembers bounds the members of an object that is read: each takes ten times as
// much memory as it may have in the text.
const maxMembers = 1024

// Object is a JSON object whose members keep their order and their spelling:
// what is changed in it is all that changes.
type Object []member

type member struct {
	name  string
	value jsontext.Value
}

// Parse reads an object of up to maxMembers members. A name that comes twice is
// an error: two programs that read it might each take another.
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

// Get gives a member's value; nil if there is none.
func (o Object) Get(name string) jsontext.Value {
	if i := o.index(name); i >= 0 {
		return o[i].value
	}
	return nil
}

// Text gives a member that is a string.
func (o Object) Text(name string) (string, bool) {
	v := o.Get(name)
	if v.Kind() != '"' {
		return "", false
	}
	b, err := jsontext.AppendUnquote(nil, v)
	return string(b), err == nil
}

// Is reports whether a member is a string of this value.
func (o Object) Is(name, value string) bool {
	text, ok := o.Text(name)
	return ok && text == value
}

// Set changes a member, or adds it.
func (o *Object) Set(name string, value jsontext.Value) {
	if i := o.index(name); i >= 0 {
		(*o)[i].value = value
		return
	}
	*o = append(*o, member{name, value})
}

// Remove takes a member out, if it is there.
func (o *Object) Remove(name string) {
	if i := o.index(name); i >= 0 {
		*o = append((*o)[:i:i], (*o)[i+1:]...)
	}
}

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

// Quote writes a JSON string.
func Quote(s string) jsontext.Value {
	b, _ := jsontext.AppendQuote(nil, s) // fails on bad UTF-8 only, and then writes U+FFFD
	return b
}

func Number(n int64) jsontext.Value { return strconv.AppendInt(nil, n, 10) }

// readAll reads a body up to the bound.
func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err == nil && len(data) > MaxSize {
		err = ErrTooLarge
	}
	return data, err
}

// newBody makes a body of data, and has the headers that go with it say so.
func newBody(h http.Header, data []byte) (body io.ReadCloser, length int64, codings []string) {
	h.Del("Content-Encoding")
	h.Del("Transfer-Encoding")
	h.Set("Content-Length", strconv.Itoa(len(data)))
	return io.NopCloser(bytes.NewReader(data)), int64(len(data)), nil
}

func SetRequest(r *http.Request, data []byte) {
	r.Body, r.ContentLength, r.TransferEncoding = newBody(r.Header, data)
}

// ReadResponse reads the body of an answer, unpacked, and leaves it so. It was
// not asked for compressed, but some compress all the same.
func ReadResponse(resp *http.Response) ([]byte, error) { return ReadResponseWith(resp, readAll) }

// ReadResponseWith does the same with another function that reads up to the bound.
func ReadResponseWith(resp *http.Response, readAll func(io.Reader) ([]byte, error)) ([]byte, error) {
	var r io.Reader = resp.Body
	switch enc := resp.Header.Get("Content-Encoding"); strings.ToLower(enc) {
	case "", "identity":
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			return nil, errors.New("answer is not the gzip that it claims to be")
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

// ReadLenient reads the body of an answer that is passed on whatever it holds. The
// object is nil if the body is none, or is compressed in a way that cannot be read.
func ReadLenient(resp *http.Response) (Object, error) {
	data, err := ReadResponse(resp)
	if errors.Is(err, errCoding) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if body, err := Parse(data); err == nil {
		return body, nil
	}
	return nil, nil
}

func SetResponse(resp *http.Response, data []byte) {
	resp.Body, resp.ContentLength, resp.TransferEncoding = newBody(resp.Header, data)
}
