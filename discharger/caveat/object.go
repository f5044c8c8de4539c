package caveat

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// object decodes one JSON object strictly, member by member. The decoder refuses
// duplicate names and invalid UTF-8, and each value is read by its kind, so that nothing
// nests deeper than the caller allows. Errors quote at most a short piece of the text.
type object struct {
	dec *jsontext.Decoder
	end int64 // where the text ends
}

// openObject begins a text that has to be one object, without white space around it.
func openObject(text []byte) (*object, error) {
	if len(text) == 0 || text[0] != '{' {
		return nil, errors.New("not a JSON object")
	}
	o := &object{dec: jsontext.NewDecoder(bytes.NewBuffer(text)), end: int64(len(text))}
	return o, o.enter()
}

// enter reads the opening brace of an object.
func (o *object) enter() error {
	if o.dec.PeekKind() != '{' {
		return o.unexpected("an object")
	}
	_, err := o.dec.ReadToken()
	return err
}

// next returns the name of the next member; ok is false at the end of the object.
func (o *object) next() (name string, ok bool, err error) {
	tok, err := o.dec.ReadToken()
	if err != nil {
		return "", false, shorten(err)
	}
	if tok.Kind() == '}' {
		return "", false, nil
	}
	return tok.String(), true, nil
}

// shorten replaces the decoder's error that quotes a whole name.
func shorten(err error) error {
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) && errors.Is(err, jsontext.ErrDuplicateName) {
		return fmt.Errorf("%.64q is a duplicate", syntax.JSONPointer.LastToken())
	}
	return err
}

// str reads a string.
func (o *object) str() (string, error) {
	if o.dec.PeekKind() != '"' {
		return "", o.unexpected("a string")
	}
	tok, err := o.dec.ReadToken()
	if err != nil {
		return "", err
	}
	return tok.String(), nil
}

// maxInteger is 2⁵³, up to which every JSON reader agrees on integers.
const maxInteger = 1 << 53

// integer reads a whole number from 0 to maxInteger, written in digits alone.
func (o *object) integer() (int64, error) {
	if o.dec.PeekKind() != '0' {
		return 0, o.unexpected("a number")
	}
	raw, err := o.dec.ReadValue()
	if err != nil {
		return 0, err
	}
	if bytes.ContainsFunc(raw, func(r rune) bool { return r < '0' || r > '9' }) {
		return 0, errors.New("not a whole number without sign")
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n > maxInteger {
		return 0, errors.New("number is over 2^53")
	}
	return n, nil
}

// close checks that the text ends where the object does.
func (o *object) close() error {
	if o.dec.InputOffset() != o.end {
		return errors.New("data after the object")
	}
	return nil
}

// unexpected is the error for a value of another kind, or for no value at all.
func (o *object) unexpected(want string) error {
	kind := o.dec.PeekKind()
	if kind == jsontext.KindInvalid {
		_, err := o.dec.ReadToken()
		return err
	}
	return fmt.Errorf("found %s where %s belongs", kind, want)
}

// stringMembers returns the values of an object of strings with exactly the given
// names, in any order. The values are in the order of the names.
func stringMembers(text []byte, names ...string) ([]string, error) {
	o, err := openObject(text)
	if err != nil {
		return nil, err
	}
	values := make([]string, len(names))
	found := 0
	for {
		name, ok, err := o.next()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		i := slices.Index(names, name)
		if i < 0 {
			return nil, errors.New("unknown member")
		}
		if values[i], err = o.str(); err != nil {
			return nil, err
		}
		found++
	}
	if found != len(names) {
		return nil, errors.New("a member is missing")
	}
	return values, o.close()
}
