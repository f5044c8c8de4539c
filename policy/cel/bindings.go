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

// objectTypeName is the CEL type of an object variable.
func objectTypeName(object string) string { return "input." + object }

// An objectType describes an object variable to CEL: it is the type, the
// descriptor of the type's fields, and the one value of the type.
type objectType struct {
	*cel.Type
	names  []string
	fields map[string]*types.FieldType
}

// newObjectTypes builds the object types over the table's fields. Values are
// read through a *Bindings, which keeps each field's CEL value once made.
func newObjectTypes(table []Field) []*objectType {
	var all []*objectType
	for _, name := range Objects() {
		o := &objectType{
			Type:   types.NewObjectType(objectTypeName(name)),
			fields: map[string]*types.FieldType{},
		}
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

// ReflectType, FieldNames, FindFieldType, NewValue and Adapt make an
// objectType a types.StructTypeDescriptor.
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

// Bindings is an Input as the variables of an expression. Each field's value
// is made when it is first read and kept for the other rules.
type Bindings struct {
	table   []Field
	vars    map[string]int // variables that are no objects, by name
	statics map[string]ref.Val
	ctx     context.Context // of the evaluation
	in      *policy.Input
	values  []ref.Val
	objects []boundObject
}

var _ cel.Activation = (*Bindings)(nil)

// Input returns the input that is bound.
func (b *Bindings) Input() *policy.Input { return b.in }

// ResolveName makes Bindings a cel.Activation.
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

// Parent makes Bindings a cel.Activation.
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

// An UnsetError is the error of reading a field that has no value.
type UnsetError struct{ Path string }

func (e *UnsetError) Error() string {
	return e.Path + " is not known here; ask has(" + e.Path + ") first"
}

// A boundObject is one object variable's value.
type boundObject struct {
	b    *Bindings
	name string
	typ  *objectType
}

var errOpaque = errors.New("an object of the input has no native value")

func (o *boundObject) ConvertToNative(reflect.Type) (any, error) { return nil, errOpaque }

func (o *boundObject) ConvertToType(t ref.Type) ref.Val {
	return types.NewErr("type conversion error from '%s' to '%s'", o.typ.TypeName(), t.TypeName())
}

func (o *boundObject) Equal(other ref.Val) ref.Val { return types.Bool(ref.Val(o) == other) }

func (o *boundObject) Type() ref.Type { return o.typ }

func (o *boundObject) Value() any { return o }
