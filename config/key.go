package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// join returns the key of a name in a section.
func join(section, name string) string {
	if section == "" {
		return name
	}
	return section + "." + name
}

// holderOf returns the key of the mapping or list that holds a key's value.
func holderOf(key string) string { return key[:max(strings.LastIndexAny(key, ".["), 0)] }

// fieldOf returns a struct's field by the name of its key, or the zero Value.
func fieldOf(v reflect.Value, name string) reflect.Value {
	if i := slices.Index(allKeysOf(v.Type()), name); i >= 0 && name != "-" {
		return v.Field(i)
	}
	return reflect.Value{}
}

// allKeysOf returns the key of every field, "-" for those without one.
func allKeysOf(t reflect.Type) []string {
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i] = t.Field(i).Tag.Get("yaml")
	}
	return keys
}

// keysOf returns the keys of a struct.
func keysOf(t reflect.Type) []string {
	return slices.DeleteFunc(allKeysOf(t), func(k string) bool { return k == "-" })
}

// paths returns the keys of a configuration, those of lists without an index.
func paths() []string {
	all := []string{}
	var add func(section string, t reflect.Type)
	add = func(section string, t reflect.Type) {
		for i, name := range allKeysOf(t) {
			if name == "-" {
				continue
			}
			all = append(all, join(section, name))
			inner := t.Field(i).Type
			for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct && !isScalar(reflect.New(inner).Elem()) {
				add(join(section, name), inner)
			}
		}
	}
	add("", reflect.TypeFor[Config]())
	return all
}

// walk calls do for every scalar of a part of a configuration that is there, with its
// key and the field that it stands in.
func walk(key string, v reflect.Value, f reflect.StructField, do func(key string, v reflect.Value, f reflect.StructField)) {
	switch {
	case isScalar(v):
		do(key, v, f)
	case v.Kind() == reflect.Pointer:
		if !v.IsNil() {
			walk(key, v.Elem(), f, do)
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			walk(fmt.Sprintf("%s[%d]", key, i), v.Index(i), f, do)
		}
	default:
		for i, name := range allKeysOf(v.Type()) {
			if name != "-" {
				walk(join(key, name), v.Field(i), v.Type().Field(i), do)
			}
		}
	}
}
