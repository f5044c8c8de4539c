package cel

import (
	"context"
	"errors"
	"reflect"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/discharger/discharger/policy"
)

// An objectType is the CEL type of an object variable with the descriptors of its fields.
type objectType struct {
	*cel.Type
	names  []string
	fields map[string]*types.FieldType
}

// newObjectTypes returns the object types of a field table. Fields are
// read from a *Bindings, which caches their CEL values.
func newObjectTypes(table []Field) []*objectType {
	var all []*objectType
	for _, name := range Objects() {
		o := &objectType{Type: types.NewObjectType("input." + name), fields: map[string]*types.FieldType{}}
		for i := range table {
			f := &table[i]
			if f.Object != name {
				continue
			}
			o.names = append(o.names, f.Name)
			o.fields[f.Name] = &types.FieldType{
				Type:    f.Type,
				IsSet:   func(target any) bool { return target.(*boundObject).b.has(i) },
				GetFrom: func(target any) (any, error) { return target.(*boundObject).b.value(i) },
			}
		}
		all = append(all, o)
	}
	return all
}

// ReflectType, FieldNames, FindFieldType, NewValue and Adapt implement
// types.StructTypeDescriptor.
func (o *objectType) ReflectType() reflect.Type { return nil }

func (o *objectType) FieldNames() []string { return o.names }

func (o *objectType) FindFieldType(name string) (*types.FieldType, bool) {
	f, ok := o.fields[name]
	return f, ok
}

func (o *objectType) NewValue(types.Adapter, map[string]ref.Val) ref.Val {
	return types.NewErr("%s cannot be constructed", o.TypeName())
}

func (o *objectType) Adapt(_ types.Adapter, v any) ref.Val {
	return types.NewErr("%s cannot hold %T", o.TypeName(), v)
}

// Bindings are the variables of an expression with the values of an Input. The CEL value of
// a field is made at the first read and kept for the other rules.
type Bindings struct {
	table   []Field
	vars    map[string]int // index of variables that are not objects, by name
	statics map[string]ref.Val
	ctx     context.Context // of the evaluation
	in      *policy.Input
	values  []ref.Val
	objects []boundObject
}

var _ cel.Activation = (*Bindings)(nil)

// Input returns the bound input.
func (b *Bindings) Input() *policy.Input { return b.in }

// ResolveName implements cel.Activation.
func (b *Bindings) ResolveName(name string) (any, bool) {
	if i, ok := b.vars[name]; ok {
		v, err := b.value(i)
		if err != nil {
			return types.WrapErr(err), true
		}
		return v, true
	}
	for i := range b.objects {
		if b.objects[i].name == name {
			return &b.objects[i], true
		}
	}
	v, ok := b.statics[name]
	return v, ok
}

// Parent implements cel.Activation.
func (b *Bindings) Parent() cel.Activation { return nil }

func (b *Bindings) has(i int) bool {
	set := b.table[i].set
	return set == nil || set(b.in)
}

func (b *Bindings) value(i int) (ref.Val, error) {
	if v := b.values[i]; v != nil {
		return v, nil
	}
	f := &b.table[i]
	if f.load != nil {
		if err := f.load(b.ctx, b.in); err != nil {
			return nil, err
		}
	}
	if f.Required && !f.set(b.in) {
		return nil, &UnsetError{f.Path()}
	}
	v := f.get(b.in)
	b.values[i] = v
	return v, nil
}

// An UnsetError is the error of reading a field without a value.
type UnsetError struct{ Path string }

// Error returns the path and the test that avoids the error.
func (e *UnsetError) Error() string {
	return e.Path + " is unset; test has(" + e.Path + ") first"
}

// A boundObject is the value of an object variable.
type boundObject struct {
	b    *Bindings
	name string
	typ  *objectType
}

var errOpaque = errors.New("object has no native value")

func (o *boundObject) ConvertToNative(reflect.Type) (any, error) { return nil, errOpaque }

func (o *boundObject) ConvertToType(t ref.Type) ref.Val {
	return types.NewErr("type conversion error from '%s' to '%s'", o.typ.TypeName(), t.TypeName())
}

func (o *boundObject) Equal(other ref.Val) ref.Val { return types.Bool(ref.Val(o) == other) }

func (o *boundObject) Type() ref.Type { return o.typ }

func (o *boundObject) Value() any { return o }
