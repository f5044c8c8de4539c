package gateway

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

// maxBody bounds the bodies that are read, in bytes. All others only pass
// through.
const maxBody = 1 << 20

var (
	errTooLarge = errors.New("body is too large")
	errNotJSON  = errors.New("body is not a JSON object")
	errCoding   = errors.New("answer is compressed in a way that was not asked for")
)

// maxMembers bounds the members of an object that is read: each takes ten times as
// much memory as it may have in the text.
const maxMembers = 1024

// object is a JSON object whose members keep their order and their spelling:
// what is changed in it is all that changes.
type object []member

type member struct {
	name  string
	value jsontext.Value
}

// parseObject reads an object of up to maxMembers members. A name that comes twice is
// an error: two programs that read it might each take another.
func parseObject(data []byte) (object, error) {
	d := jsontext.NewDecoder(bytes.NewReader(data))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return nil, errNotJSON
	}
	o := object{}
	for d.PeekKind() == '"' && len(o) < maxMembers {
		name, err := d.ReadToken()
		if err != nil {
			return nil, errNotJSON
		}
		m := member{name: name.String()}
		value, err := d.ReadValue()
		if err != nil {
			return nil, errNotJSON
		}
		m.value = value.Clone()
		o = append(o, m)
	}
	if t, err := d.ReadToken(); err != nil || t.Kind() != '}' {
		return nil, errNotJSON
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errNotJSON
	}
	return o, nil
}

func (o object) index(name string) int {
	for i := range o {
		if o[i].name == name {
			return i
		}
	}
	return -1
}

// get gives a member's value; nil if there is none.
func (o object) get(name string) jsontext.Value {
	if i := o.index(name); i >= 0 {
		return o[i].value
	}
	return nil
}

// text gives a member that is a string.
func (o object) text(name string) (string, bool) {
	v := o.get(name)
	if v.Kind() != '"' {
		return "", false
	}
	b, err := jsontext.AppendUnquote(nil, v)
	return string(b), err == nil
}

// is reports whether a member is a string of this value.
func (o object) is(name, value string) bool {
	text, ok := o.text(name)
	return ok && text == value
}

// set changes a member, or adds it.
func (o *object) set(name string, value jsontext.Value) {
	if i := o.index(name); i >= 0 {
		(*o)[i].value = value
		return
	}
	*o = append(*o, member{name, value})
}

// remove takes a member out, if it is there.
func (o *object) remove(name string) {
	if i := o.index(name); i >= 0 {
		*o = append((*o)[:i:i], (*o)[i+1:]...)
	}
}

func (o object) encode() []byte {
	b := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, quote(m.name)...), ':'), m.value...)
	}
	return append(b, '}')
}

// quote writes a JSON string.
func quote(s string) jsontext.Value {
	b, _ := jsontext.AppendQuote(nil, s) // fails on bad UTF-8 only, and then writes U+FFFD
	return b
}

func number(n int64) jsontext.Value { return strconv.AppendInt(nil, n, 10) }

// readAll reads a body up to the bound.
func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err == nil && len(data) > maxBody {
		err = errTooLarge
	}
	return data, err
}

// readRequest reads the body of a request and leaves it as it was. What is
// compressed is not looked into.
func (g *Gateway) readRequest(r *http.Request) ([]byte, *failure) {
	if enc := r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return nil, badRequest(codeUnknown, "A compressed body cannot be read here.")
	}
	if r.Body == nil {
		return nil, nil
	}
	x := exchangeOf(r.Context())
	err := errTooLarge
	var data []byte
	if r.ContentLength <= maxBody {
		data, err = g.bodies.read(r.Body, &x.body)
	}
	switch {
	case err == nil:
	case errors.Is(err, errTooLarge):
		return nil, &failure{
			status: http.StatusRequestEntityTooLarge, code: codeTooLarge, message: "The body is too large.", outcome: outcomeMalformed,
		}
	case errors.Is(err, errNoRoom):
		return nil, tooMany(x.route)
	case errors.Is(err, errSlow):
		return nil, tooSlow(r)
	default:
		return nil, badRequest(codeUnknown, "The body could not be read.")
	}
	setRequestBody(r, data)
	return data, nil
}

// newBody makes a body of data, and has the headers that go with it say so.
func newBody(h http.Header, data []byte) (body io.ReadCloser, length int64, codings []string) {
	h.Del("Content-Encoding")
	h.Del("Transfer-Encoding")
	h.Set("Content-Length", strconv.Itoa(len(data)))
	return io.NopCloser(bytes.NewReader(data)), int64(len(data)), nil
}

func setRequestBody(r *http.Request, data []byte) {
	r.Body, r.ContentLength, r.TransferEncoding = newBody(r.Header, data)
}

// readResponse reads the body of an answer, unpacked, and leaves it so. It was
// not asked for compressed, but some compress all the same.
func readResponse(resp *http.Response) ([]byte, error) { return readResponseBy(resp, readAll) }

// readResponseBy does the same with another function that reads up to the bound.
func readResponseBy(resp *http.Response, readAll func(io.Reader) ([]byte, error)) ([]byte, error) {
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
	setResponseBody(resp, data)
	return data, nil
}

// readAnswer reads the body of an answer that is passed on whatever it holds. The
// object is nil if the body is none, or is compressed in a way that cannot be read.
func readAnswer(resp *http.Response) (object, error) {
	data, err := readResponse(resp)
	if errors.Is(err, errCoding) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if body, err := parseObject(data); err == nil {
		return body, nil
	}
	return nil, nil
}

func setResponseBody(resp *http.Response, data []byte) {
	resp.Body, resp.ContentLength, resp.TransferEncoding = newBody(resp.Header, data)
}
