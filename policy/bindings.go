package policy

import (
	"errors"
	"reflect"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// objects names the variables that have fields, in order.
func objects() []string {
	return []string{"homeserver", "user", "session", "request", "grant"}
}

// objectTypeName is the CEL type of an object variable.
func objectTypeName(object string) string { return "input." + object }

// An objectType tells CEL about an object variable: it is the type, the
// descriptor of the type's fields, and the one value of the type.
type objectType struct {
	*cel.Type
	names  []string
	fields map[string]*types.FieldType
}

// newObjectTypes builds the object types over the table's fields. Values are
// read through a *bindings, which keeps each field's CEL value once made.
func newObjectTypes(table []field) []*objectType {
	var all []*objectType
	for _, name := range objects() {
		o := &objectType{
			Type:   types.NewObjectType(objectTypeName(name)),
			fields: map[string]*types.FieldType{},
		}
		for i := range table {
			f := &table[i]
			if f.object != name {
				continue
			}
			o.names = append(o.names, f.name)
			o.fields[f.name] = &types.FieldType{
				Type:    f.typ,
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

// bindings is an Input as the variables of an expression. Each field's value
// is made when it is first read and kept for the other rules.
type bindings struct {
	table   []field
	vars    map[string]int // variables that are no objects, by name
	statics map[string]ref.Val
	in      *Input
	values  []ref.Val
	objects []boundObject
}

var _ cel.Activation = (*bindings)(nil)

// ResolveName makes bindings a cel.Activation.
func (b *bindings) ResolveName(name string) (any, bool) {
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

// Parent makes bindings a cel.Activation.
func (b *bindings) Parent() cel.Activation { return nil }

func (b *bindings) has(i int) bool {
	set := b.table[i].set
	return set == nil || set(b.in)
}

func (b *bindings) value(i int) (ref.Val, error) {
	if v := b.values[i]; v != nil {
		return v, nil
	}
	f := &b.table[i]
	if f.guard && !f.set(b.in) {
		return nil, &unsetError{f.path()}
	}
	v := f.get(b.in)
	b.values[i] = v
	return v, nil
}

// unsetError is the error of reading a field that has no value.
type unsetError struct{ path string }

func (e *unsetError) Error() string {
	return e.path + " is not known here; ask has(" + e.path + ") first"
}

// A boundObject is one object variable's value.
type boundObject struct {
	b    *bindings
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
